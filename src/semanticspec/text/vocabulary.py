"""A model's vocabulary: token ids and text, special tokens, streaming detokenization."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from semanticspec.errors import ModelError, first_line
from semanticspec.text.chat import THINK_END, THINK_START, Prompt, ends_inside_thinking, render_prompt

# End-of-turn and end-of-text tokens of common model families. The tokenizer's `eos_token` and the ids of the generation
# config count too; this list covers models whose config files name only some of their end tokens.
TURN_ENDS = frozenset(
    {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>", "</s>"}
    | {"<｜end▁of▁sentence｜>", "<|endofturn|>"}
)


class Vocabulary:
    """A fast tokenizer with the special tokens that decoding needs.

    Attributes:
        tokenizer: the wrapped `PreTrainedTokenizerFast`.
        end_ids: ids that end a text.
        end_id: the end id to append when one is needed.
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
        vocab: dict[str, int] = tokenizer.get_vocab()
        ends = {vocab[text] for text in TURN_ENDS if text in vocab} | set(end_ids)
        if tokenizer.eos_token_id is not None:
            ends.add(tokenizer.eos_token_id)
        if not ends:
            raise ModelError("the tokenizer has no end-of-text token; set eos_token in tokenizer_config.json")
        self.end_ids = frozenset(ends)
        self.end_id: int = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(ends)
        self.think_start_id: int | None = vocab.get(THINK_START)
        self.think_end_id: int | None = vocab.get(THINK_END)

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

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without a begin-of-text token."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids. End-of-text tokens are dropped; other special tokens are kept."""
        kept = [i for i in ids if i not in self.end_ids]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def render_prompt(self, prompt: Prompt) -> list[int]:
        """Returns the ids of a prompt in the model's chat template. See `chat.render_prompt`."""
        return render_prompt(self.tokenizer, prompt)

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Returns whether a rendered prompt ends inside `<think>`, as some chat templates make it."""
        return ends_inside_thinking(self.decode(prompt_ids[-16:]))

    @cached_property
    def added_tokens(self) -> dict[int, str]:
        """Tokens outside the base vocabulary, such as think tags and end-of-turn tokens."""
        return {i: token.content for i, token in self.tokenizer.added_tokens_decoder.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the base vocabulary and its merges. Models with equal fingerprints can exchange token ids."""
        model = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        added = set(self.added_tokens.values())
        vocab = model["vocab"].items() if isinstance(model["vocab"], dict) else enumerate(model["vocab"])
        base = sorted(json.dumps(item) for item in vocab if item[0] not in added)
        content = json.dumps([model.get("type"), base, model.get("merges")])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def new_text_stream(self, prompt_ids: Sequence[int]) -> TextStream:
        """Returns a streaming detokenizer for output that follows `prompt_ids`."""
        return TextStream(self, prompt_ids)


class TextStream:
    """Streaming detokenizer: emits text as soon as its characters are complete."""

    def __init__(self, vocabulary: Vocabulary, prompt_ids: Sequence[int]) -> None:
        from tokenizers.decoders import DecodeStream

        self._vocabulary = vocabulary
        self._backend = vocabulary.tokenizer.backend_tokenizer
        self._stream = DecodeStream(ids=list(prompt_ids[-4:]), skip_special_tokens=False)

    def push(self, ids: Iterable[int]) -> str:
        """Returns the text that these ids complete. End-of-text tokens add nothing."""
        pieces = (self._stream.step(self._backend, i) for i in ids if i not in self._vocabulary.end_ids)
        return "".join(piece for piece in pieces if piece)


def _generation_config_end_ids(name: str, options: dict[str, str]) -> list[int]:
    """Returns the end-of-text ids of a model's generation config; none if it has no such file."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(name, **options).eos_token_id
    except (OSError, ValueError):
        return []
    return [ends] if isinstance(ends, int) else list(ends or [])
