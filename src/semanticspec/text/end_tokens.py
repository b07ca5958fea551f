"""End-of-text tokens of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from semanticspec.errors import ModelError

# End-of-turn and end-of-text tokens of common model families.
TURN_ENDS = frozenset(
    {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>", "</s>"}
    | {"<｜end▁of▁sentence｜>", "<|endofturn|>"}
)
# gpt-oss ends each message with `<|end|>`, and its turn continues in the next channel.
_CHANNEL, _MESSAGE_END = "<|channel|>", "<|end|>"


def find_end_ids(tokenizer: Any, named: Iterable[int]) -> frozenset[int]:
    """Returns the ids that end a text.

    These are the tokenizer's `eos_token`, the ids of the generation config, and the members of `TURN_ENDS` that the
    tokenizer names as one of its special tokens (`pad_token`, for example) or that its chat template writes: config
    files often name one of several ends. A member of `TURN_ENDS` that is just in the vocabulary counts only if there is
    no other end: Gemma's `</s>` is an HTML tag.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`.
        named: ids of the generation config.

    Raises:
        ModelError: There is none.
    """
    vocab: dict[str, int] = tokenizer.get_vocab()
    known = {text for text in TURN_ENDS if text in vocab}
    if _CHANNEL in vocab:
        known.discard(_MESSAGE_END)
    special = set(map(str, tokenizer.all_special_tokens))
    chat_template = str(getattr(tokenizer, "chat_template", None) or "")
    ends = {vocab[text] for text in known if text in special or text in chat_template} | set(named)
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    ends = ends or {vocab[text] for text in known}
    if not ends:
        raise ModelError("the tokenizer has no end-of-text token; set eos_token in tokenizer_config.json")
    return frozenset(ends)
