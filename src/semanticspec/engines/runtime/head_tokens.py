"""The tokens of a cut head: a draft that computes logits for its most frequent tokens only.

The head of a small model with a large vocabulary is a quarter to a third of the bytes that a decode step reads. Tokens
that are cut have probability 0. The rule `token` stays lossless: it samples them from the target's residual.

Source: FR-Spec (arXiv 2502.14856), whose draft is cut likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from semanticspec.errors import ConfigError


@dataclass(frozen=True)
class HeadTokens:
    """The token ids that a head keeps, ascending, of a vocabulary of `vocabulary_size` tokens."""

    ids: tuple[int, ...]
    vocabulary_size: int

    @classmethod
    def read(cls, path: str, vocabulary_size: int) -> HeadTokens:
        """Reads a file with one token id per line, as `semanticspec head-tokens` writes it.

        Raises:
            ConfigError: The file cannot be read, or its ids do not fit the model.
        """
        try:
            lines = Path(path).expanduser().read_text(encoding="utf-8").split()
            ids = tuple(sorted({int(line) for line in lines}))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"head_tokens is {path!r}; expected a file with one token id per line "
                f"(make one with `semanticspec head-tokens`): {error}"
            ) from error
        if not ids or ids[0] < 0 or ids[-1] >= vocabulary_size:
            found = f"ids from {ids[0]} to {ids[-1]}" if ids else "no ids"
            raise ConfigError(
                f"{path} has {found}; expected ids from 0 to {vocabulary_size - 1}, the model's vocabulary"
            )
        return cls(ids, vocabulary_size)

    @cached_property
    def digest(self) -> str:
        """Identifies the ids."""
        return sha256(" ".join(map(str, self.ids)).encode()).hexdigest()[:16]

    def widen(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Returns logits `[..., kept]` as `[..., vocabulary]`, minus infinity for the tokens that are cut.

        Args:
            logits: of the kept tokens.
            ids: `self.ids` on the device of `logits`, int64.
        """
        wide = logits.new_full((*logits.shape[:-1], self.vocabulary_size), -torch.inf)
        return wide.index_copy_(-1, ids, logits)
