"""What every engine refuses before it works."""

from __future__ import annotations

from collections.abc import Sequence

from semanticspec.config import check_sampling
from semanticspec.engines.base import EngineInfo
from semanticspec.errors import EngineError
from semanticspec.records import Sampling


def checked_context(
    info: EngineInfo, context_ids: Sequence[int], new_tokens: int, sampling: Sampling | None
) -> list[int]:
    """The context as a list of its own.

    Raises:
        EngineError: it is empty, has ids without a meaning, or does not fit the model with `new_tokens` more.
        ConfigError: the sampling settings are out of range.
    """
    context, limit = list(context_ids), info.max_context_tokens
    if not context:
        raise EngineError("the context is empty; expected at least one token")
    if new_tokens < 1:
        raise EngineError(f"max_tokens is {new_tokens}; expected 1 or more")
    if len(context) + new_tokens > limit:
        raise EngineError(
            f"{len(context)} context tokens and {new_tokens} new ones do not fit the model's context of "
            f"{limit} tokens"
        )
    check_ids(info, context)
    if sampling is not None:
        check_sampling(sampling)
    return context


def checked_continuations(info: EngineInfo, continuations: Sequence[Sequence[int]]) -> list[list[int]]:
    """Continuations to score, as lists of their own.

    Raises:
        EngineError: there is none, one is empty, or has ids without a meaning.
    """
    if not continuations or not all(continuations):
        raise EngineError("nothing to score: expected at least one continuation, and none of them empty")
    rows = [list(continuation) for continuation in continuations]
    for row in rows:
        check_ids(info, row)
    return rows


def check_ids(info: EngineInfo, token_ids: list[int]) -> None:
    """Raises EngineError for ids without a row in the embedding: on a GPU they would end the process."""
    if min(token_ids) < 0 or max(token_ids) >= info.vocabulary_size:
        raise EngineError(
            f"there are ids outside the model's vocabulary of {info.vocabulary_size}; "
            "is the tokenizer the model's own?"
        )
