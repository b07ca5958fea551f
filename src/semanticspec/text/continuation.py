"""Encoding and decoding of text that continues other text.

SentencePiece-style tokenizers put a space before a text and drop it when they decode. That is right for a whole text
and wrong for a part of one: "The" and " cat" would become "Thecat".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def continuation_backend(backend: Tokenizer) -> Tokenizer:
    """Returns a tokenizer that neither adds nor drops a space at the start of a text.

    What it decodes adds up: the text of tokens is the concatenation of the texts of their parts, as long as no part
    ends inside a character.

    Returns:
        `backend` itself if it changes nothing at the start of a text.
    """
    from tokenizers import Tokenizer

    backend.no_truncation()
    backend.no_padding()
    parts = {name: _state(getattr(backend, name)) for name in ("normalizer", "pre_tokenizer", "decoder")}
    changed = {name: _without_prefix_space(state, name) for name, state in parts.items()}
    if changed == parts:
        return backend
    whole = json.loads(backend.to_str())
    return Tokenizer.from_str(json.dumps(whole | changed))


def _state(part: Any) -> dict[str, Any] | None:
    """Returns the configuration of a normalizer, pre-tokenizer or decoder."""
    return None if part is None else json.loads(part.__getstate__())


def _without_prefix_space(state: dict[str, Any] | None, part: str) -> dict[str, Any] | None:
    """Returns a configuration without the steps that add or drop space at the start; None if no step is left."""
    if state is None or state["type"] in ("Prepend", "Strip"):
        return None
    for steps in ("normalizers", "pretokenizers", "decoders"):
        if steps in state:
            kept = [_without_prefix_space(step, part) for step in state[steps]]
            return state | {steps: [step for step in kept if step is not None]}
    if state["type"] == "Metaspace":
        return state | {"prepend_scheme": "never"}
    if state["type"] == "ByteLevel" and part == "pre_tokenizer":
        return state | {"add_prefix_space": False}
    return state
