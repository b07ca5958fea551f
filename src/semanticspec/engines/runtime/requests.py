"""Validated arguments of engine calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semanticspec.config import check_sampling
from semanticspec.engines.base import EngineInfo
from semanticspec.errors import EngineError
from semanticspec.records import Sampling, Stop


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Arguments of `Engine.generate`. `first_sample` is the number of the first of the n samples."""

    context_ids: list[int]
    n: int
    max_tokens: int
    stop: Stop
    sampling: Sampling
    seed: int
    distributions: bool
    request_id: str | None
    first_sample: int = 0


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Arguments of `Engine.score`."""

    context_ids: list[int]
    continuations: list[list[int]]
    sampling: Sampling | None
    seed: int
    distributions: bool
    request_id: str | None
    signals: bool = False


def check_context(
    info: EngineInfo, context_ids: Sequence[int], num_new_tokens: int, sampling: Sampling | None
) -> list[int]:
    """Returns a copy of the context ids.

    Raises:
        EngineError: The context is empty, contains unknown ids, or exceeds the model's limit.
        ConfigError: The sampling settings are out of range.
    """
    context, limit = list(context_ids), info.max_context_tokens
    if not context:
        raise EngineError("the context is empty; expected at least one token")
    if num_new_tokens < 1:
        raise EngineError(f"max_tokens is {num_new_tokens}; expected 1 or more")
    if len(context) + num_new_tokens > limit:
        raise EngineError(
            f"{len(context)} context tokens and {num_new_tokens} new tokens exceed the model's context of "
            f"{limit} tokens"
        )
    _check_ids(info, context)
    if sampling is not None:
        check_sampling(sampling)
    return context


def check_continuations(info: EngineInfo, continuations: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns copies of the continuations to score.

    Raises:
        EngineError: There is none, one is empty, or one contains unknown ids.
    """
    if not continuations or not all(continuations):
        raise EngineError("nothing to score: expected at least one continuation, and none of them empty")
    rows = [list(continuation) for continuation in continuations]
    for row in rows:
        _check_ids(info, row)
    return rows


def _check_ids(info: EngineInfo, token_ids: list[int]) -> None:
    """Raises EngineError for ids without an embedding; on a GPU these would abort the process."""
    if min(token_ids) < 0 or max(token_ids) >= info.vocabulary_size:
        raise EngineError(
            f"some token ids are outside the model's vocabulary of {info.vocabulary_size}; "
            "use the model's own tokenizer"
        )
