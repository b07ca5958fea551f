"""The text side of a model: its tokenizer, chat template, think tags and ends of text.

Also the hand-over between a draft and a target. Models with the same ordinary tokens exchange ids, added tokens
being mapped by role; only otherwise is text re-encoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from semanticspec.errors import ModelError, PromptError, first_line

if TYPE_CHECKING:
    from torch import Tensor

THINK_START = "<think>"
THINK_END = "</think>"


@dataclass(frozen=True, slots=True)
class PlainText:
    """A text to be continued as it stands, without a chat template."""

    text: str


Prompt = str | PlainText | Sequence[Mapping[str, str]]

# Added tokens that end a turn or a text in well-known model families. A model's own generation config and its
# tokenizer's eos token count as well; these catch folders whose configs name only one of several.
TURN_ENDS = frozenset(
    {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>", "</s>"}
    | {"<｜end▁of▁sentence｜>", "<|endofturn|>"}
)


class Vocabulary:
    """A tokenizer, seen through what decoding needs of it."""

    def __init__(self, tokenizer: Any, end_ids: Iterable[int] = ()) -> None:
        """Wraps a fast tokenizer of transformers.

        Args:
            tokenizer: a `PreTrainedTokenizerFast`.
            end_ids: further ids that end a text, such as those of the model's generation config.
        """
        self.tokenizer = tokenizer
        vocab: dict[str, int] = tokenizer.get_vocab()
        ends = {vocab[text] for text in TURN_ENDS if text in vocab} | set(end_ids)
        if tokenizer.eos_token_id is not None:
            ends.add(tokenizer.eos_token_id)
        if not ends:
            raise ModelError(
                "the tokenizer names no end-of-text token; set eos_token in tokenizer_config.json"
            )
        self.end_ids = frozenset(ends)
        self.end_id: int = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(ends)
        self.think_start_id: int | None = vocab.get(THINK_START)
        self.think_end_id: int | None = vocab.get(THINK_END)

    @classmethod
    def load(cls, model: str, revision: str | None = None) -> Vocabulary:
        """The vocabulary of a model by hub name, local folder or GGUF file.

        Raises:
            ModelError: there is no readable fast tokenizer.
        """
        from pathlib import Path

        from transformers import AutoTokenizer

        from semanticspec.text.gguf_files import tokenizer_in

        path = Path(model).expanduser()
        options: dict[str, Any] = {"revision": revision} if revision else {}
        name = model
        if path.suffix == ".gguf":
            name, options["gguf_file"] = str(path.parent), path.name
        try:
            found = tokenizer_in(path) if path.suffix == ".gguf" else None
            tokenizer = found or AutoTokenizer.from_pretrained(name, **options)
        except Exception as error:
            raise ModelError(f"no tokenizer could be read from {model!r}: {first_line(error)}") from error
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"{model!r} has no fast tokenizer (tokenizer.json); convert it with transformers"
            )
        return cls(tokenizer, _generation_config_ends(name, options))

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no begin-of-text token is added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, ends of text left out, all else (think tags too) kept."""
        kept = [i for i in ids if i not in self.end_ids]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def render_prompt(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt in the model's own chat template, up to where its answer begins.

        A tokenizer without a chat template gets the text as it is.

        Raises:
            PromptError: the prompt is empty, or the chat template refuses the messages.
        """
        if isinstance(prompt, PlainText):
            if not prompt.text.strip():
                raise PromptError("the prompt is empty; give some text to go on from")
            plain: list[int] = self.tokenizer.encode(prompt.text)
            return plain
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if not any(message.get("content", "").strip() for message in messages):
            raise PromptError("the prompt is empty; give some text to answer")
        if getattr(self.tokenizer, "chat_template", None):
            return self.encode(self._in_template(messages))
        ids: list[int] = self.tokenizer.encode("\n\n".join(message["content"] for message in messages))
        return ids

    def _in_template(self, messages: list[Any]) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise PromptError(
                f"the model's chat template refuses these messages: {first_line(error)}"
            ) from error
        return text

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Whether a rendered prompt ends inside `<think>`, put there by the chat template."""
        tail = self.decode(prompt_ids[-16:])
        return THINK_START in tail and THINK_END not in tail.rpartition(THINK_START)[2]

    @cached_property
    def added_tokens(self) -> dict[int, str]:
        """Tokens beyond the ordinary vocabulary: think tags, turn ends and the like."""
        return {i: token.content for i, token in self.tokenizer.added_tokens_decoder.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the ordinary tokens and merges. Equal for models that can exchange token ids."""
        model = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        added = set(self.added_tokens.values())
        vocab = model["vocab"].items() if isinstance(model["vocab"], dict) else enumerate(model["vocab"])
        ordinary = sorted(json.dumps(item) for item in vocab if item[0] not in added)
        content = json.dumps([model.get("type"), ordinary, model.get("merges")])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def new_text_stream(self, prompt_ids: Sequence[int]) -> TextStream:
        """Turns output ids into text piece by piece."""
        return TextStream(self, prompt_ids)


class TextStream:
    """Incremental decoding: text comes out as soon as its characters are complete."""

    def __init__(self, vocabulary: Vocabulary, prompt_ids: Sequence[int]) -> None:
        from tokenizers.decoders import DecodeStream

        self._vocabulary = vocabulary
        self._backend = vocabulary.tokenizer.backend_tokenizer
        self._stream = DecodeStream(ids=list(prompt_ids[-4:]), skip_special_tokens=False)

    def push(self, ids: Iterable[int]) -> str:
        """The text that these ids complete; ends of text add nothing."""
        pieces = (self._stream.step(self._backend, i) for i in ids if i not in self._vocabulary.end_ids)
        return "".join(piece for piece in pieces if piece)


class Translation:
    """Hands tokens from one vocabulary to another: ids where the ordinary tokens agree, text otherwise."""

    def __init__(self, source: Vocabulary, sink: Vocabulary) -> None:
        self.source, self.sink = source, sink
        self.by_ids = source.fingerprint == sink.fingerprint
        self._mapped, self.unmapped = self._map_added() if self.by_ids else ({}, frozenset())

    def _map_added(self) -> tuple[dict[int, int], frozenset[int]]:
        """Added tokens by role or name: ids to change, and ids without a counterpart."""
        by_text = {text: i for i, text in self.sink.added_tokens.items()}
        mapped, unmapped = {}, set()
        for i, text in self.source.added_tokens.items():
            if i in self.source.end_ids:
                counterpart = by_text.get(text)
                mapped[i] = counterpart if counterpart in self.sink.end_ids else self.sink.end_id
            elif text in by_text:
                mapped[i] = by_text[text]
            else:
                unmapped.add(i)
        return {i: j for i, j in mapped.items() if i != j and j is not None}, frozenset(unmapped)

    def ids(self, source_ids: Sequence[int]) -> list[int]:
        """The same text in the sink's ids, up to the first token without a counterpart."""
        if not self.by_ids:
            ends = [self.sink.end_id] if source_ids and source_ids[-1] in self.source.end_ids else []
            return self.sink.encode(self.source.decode(source_ids)) + ends
        translated = []
        for i in source_ids:
            if i in self.unmapped:
                break
            translated.append(self._mapped.get(i, i))
        return translated

    def context_ids(self, source_ids: Sequence[int]) -> list[int]:
        """Like `ids`, for context: tokens without a counterpart are handed over as text, not cut."""
        if not self.unmapped.intersection(source_ids):
            return self.ids(source_ids)
        return self.sink.encode(self.source.decode(source_ids))

    def distributions(self, source: Tensor) -> Tensor:
        """Columns of `[tokens, source vocabulary]` moved to the sink's ids; unmapped tokens keep no mass."""
        if not self._mapped and not self.unmapped:
            return source
        moved = source.clone()
        moved[:, [*self._mapped, *self.unmapped]] = 0
        for i, j in self._mapped.items():
            moved[:, j] += source[:, i]
        return moved


def _generation_config_ends(name: str, options: dict[str, Any]) -> list[int]:
    """End-of-text ids that a model's generation config names; none where it has no such file."""
    from transformers import GenerationConfig

    if "gguf_file" in options:
        return []
    try:
        ends = GenerationConfig.from_pretrained(name, **options).eos_token_id
    except (OSError, ValueError):
        return []
    return [ends] if isinstance(ends, int) else list(ends or [])
