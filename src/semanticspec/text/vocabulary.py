"""A model's vocabulary: token ids and text, special tokens, streaming detokenization."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from semanticspec.errors import ModelError, first_line
from semanticspec.text.chat import Prompt, render_prompt
from semanticspec.text.continuation import continuation_backend
from semanticspec.text.end_tokens import find_end_ids
from semanticspec.text.thinking import ThinkTags, find_think_tags

_REPLACEMENT = "\ufffd"  # what decoders return for incomplete characters
_MAX_INCOMPLETE_TOKENS = 3  # a character has at most four bytes
_PADDING_TOKEN = re.compile(r"\[PAD\d+\]")  # llama.cpp's names for ids beyond the tokenizer
_PROMPT_END_TOKENS = 16


class Vocabulary:
    """A fast tokenizer with the special tokens that decoding needs.

    Attributes:
        tokenizer: the wrapped `PreTrainedTokenizerFast`.
        end_ids: ids that end a text, see `find_end_ids`.
        end_id: the end id to append when one is needed.
        think_tags: the texts around the model's reasoning.
        think_start_id, think_end_id: ids of the think tags; None where a tag is not a single token.
    """

    def __init__(self, tokenizer: Any, end_ids: Iterable[int] = ()) -> None:
        """Wraps a tokenizer.

        Args:
            tokenizer: a `PreTrainedTokenizerFast`.
            end_ids: additional end-of-text ids, such as those of the generation config.

        Raises:
            ModelError: The tokenizer has no end-of-text token.
        """
        self.tokenizer = tokenizer
        self.end_ids = find_end_ids(tokenizer, end_ids)
        self.end_id: int = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(self.end_ids)
        chat_template = str(getattr(tokenizer, "chat_template", None) or "")
        self.think_tags: ThinkTags = find_think_tags(set(self.added_tokens.values()), chat_template)
        vocab: dict[str, int] = tokenizer.get_vocab()
        self.think_start_id: int | None = vocab.get(self.think_tags.start)
        self.think_end_id: int | None = vocab.get(self.think_tags.end)

    @classmethod
    def load(cls, model: str, revision: str | None = None) -> Vocabulary:
        """Loads the tokenizer of a model.

        Args:
            model: hub name, local folder or GGUF file.
            revision: hub branch, tag or commit.

        Raises:
            ModelError: The model has no readable fast tokenizer.
        """
        from transformers import AutoTokenizer

        from semanticspec.text.gguf_files import load_tokenizer

        path = Path(model).expanduser()
        options = {"revision": revision} if revision else {}
        is_gguf = path.suffix == ".gguf"
        try:
            tokenizer = load_tokenizer(path) if is_gguf else AutoTokenizer.from_pretrained(model, **options)
        except Exception as error:
            raise ModelError(f"cannot load the tokenizer of {model!r}: {first_line(error)}") from error
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"{model!r} has no fast tokenizer (tokenizer.json); convert it with transformers"
            )
        return cls(tokenizer, [] if is_gguf else _generation_config_end_ids(model, options))

    @property
    def has_chat_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text that continues another: no begin-of-text token, no space put before it."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids that continue others, so a space at its start is kept.

        End-of-text tokens are dropped; other special tokens are kept.
        """
        kept = [i for i in ids if i not in self.end_ids]
        text: str = self._backend.decode(kept, skip_special_tokens=False)
        return text

    def complete_length(self, ids: Sequence[int]) -> int:
        """Returns how many of the ids come before an incomplete character at their end."""
        for length in range(len(ids), max(len(ids) - _MAX_INCOMPLETE_TOKENS, 0) - 1, -1):
            if not self.decode(ids[:length]).endswith(_REPLACEMENT):
                return length
        return len(ids)  # no character is that long: these are other bytes than UTF-8

    def render_prompt(self, prompt: Prompt) -> list[int]:
        """Returns the ids of a prompt in the model's chat template. See `chat.render_prompt`."""
        return render_prompt(self.tokenizer, prompt)

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Returns whether a rendered prompt ends inside the reasoning, as some chat templates make it."""
        return self._opened_thinking(prompt_ids) is not None

    def align_thinking(
        self, prompt_ids: Sequence[int], other: Vocabulary, other_ids: Sequence[int]
    ) -> list[int]:
        """Returns a rendered prompt that opens the reasoning if, and only if, another model's prompt does.

        Without this, a draft whose template opens `<think>` would see the tag twice when the target writes it, and one
        whose template does not open it would never see it.

        Args:
            prompt_ids: prompt of this vocabulary.
            other, other_ids: vocabulary and prompt of the other model.
        """
        own, wanted = self._opened_thinking(prompt_ids), other._opened_thinking(other_ids)
        if (own is None) == (wanted is None):
            return list(prompt_ids)
        start = self.think_tags.start
        if wanted is not None:
            return [*prompt_ids, *self.encode(start + wanted)]
        kept = next(n for n in reversed(range(len(prompt_ids))) if start in self.decode(prompt_ids[n:]))
        return [*prompt_ids[:kept], *self.encode(self.decode(prompt_ids[kept:]).rpartition(start)[0])]

    def _opened_thinking(self, prompt_ids: Sequence[int]) -> str | None:
        """Returns what follows the open start tag at a prompt's end; None if there is none."""
        text = self.decode(prompt_ids[-_PROMPT_END_TOKENS:])
        return text.rpartition(self.think_tags.start)[2] if self.think_tags.inside(text) else None

    @cached_property
    def added_tokens(self) -> dict[int, str]:
        """Tokens outside the base vocabulary, such as think tags and end-of-turn tokens."""
        return {i: token.content for i, token in self.tokenizer.added_tokens_decoder.items()}

    @cached_property
    def base_tokens(self) -> dict[str, int]:
        """Ids of the tokens that are neither added tokens nor padding."""
        left_out = set(self.added_tokens.values())
        vocab: dict[str, int] = self.tokenizer.get_vocab()
        return {t: i for t, i in vocab.items() if t not in left_out and not _PADDING_TOKEN.fullmatch(t)}

    @property
    def fingerprint(self) -> str:
        """Digest of the base vocabulary and its merges. Models with equal fingerprints can exchange token ids."""
        return self._fingerprints[0]

    @property
    def padded_fingerprint(self) -> str:
        """Digest that counts the padding tokens of GGUF files too, as probe cards of earlier versions do."""
        return self._fingerprints[1]

    @cached_property
    def _fingerprints(self) -> tuple[str, str]:
        model = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        if isinstance(model["vocab"], dict):
            items = {token: (token, i) for token, i in model["vocab"].items()}
        else:  # Unigram: pieces with their scores
            items = {piece: (i, [piece, score]) for i, (piece, score) in enumerate(model["vocab"])}

        def digest(tokens: Iterable[str]) -> str:
            base = sorted(json.dumps(items[token]) for token in tokens)
            content = json.dumps([model.get("type"), base, model.get("merges")])
            return hashlib.sha256(content.encode()).hexdigest()[:16]

        padded = items.keys() - self.added_tokens.values()
        plain = padded & self.base_tokens.keys()
        fingerprint = digest(plain)
        return fingerprint, fingerprint if len(plain) == len(padded) else digest(padded)

    def new_text_stream(self) -> TextStream:
        """Returns a streaming detokenizer for an output."""
        return TextStream(self)

    @cached_property
    def _backend(self) -> Any:
        """The tokenizer for texts that continue others."""
        return continuation_backend(self.tokenizer.backend_tokenizer)


class TextStream:
    """Streaming detokenizer: emits text as soon as its characters are complete."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._held: list[int] = []

    @property
    def held(self) -> tuple[int, ...]:
        """Tokens of a character that is not complete yet."""
        return tuple(self._held)

    def push(self, ids: Iterable[int]) -> str:
        """Returns the text that these ids complete. End-of-text tokens add nothing."""
        self._held += (i for i in ids if i not in self._vocabulary.end_ids)
        length = self._vocabulary.complete_length(self._held)
        text = self._vocabulary.decode(self._held[:length])
        del self._held[:length]
        return text


def _generation_config_end_ids(name: str, options: dict[str, str]) -> list[int]:
    """Returns the end-of-text ids of a model's generation config; none if it has no such file."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(name, **options).eos_token_id
    except (OSError, ValueError):
        return []
    return [ends] if isinstance(ends, int) else list(ends or [])
