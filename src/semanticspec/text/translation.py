"""Translation of tokens between the vocabularies of a draft and a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from semanticspec.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


class Translation:
    """Maps token ids from a source to a sink vocabulary.

    Vocabularies with the same base tokens exchange ids; added tokens are mapped by name, end-of-text tokens by role.
    Other vocabularies exchange text, which is tokenized again.

    Attributes:
        by_ids: whether ids are exchanged, not text.
        unmapped: added source tokens that the sink does not have; only with `by_ids`.
        ends: source ids that end a text in the sink's vocabulary; only with `by_ids`.
    """

    def __init__(self, source: Vocabulary, sink: Vocabulary) -> None:
        self.source, self.sink = source, sink
        self.by_ids = source.fingerprint == sink.fingerprint
        self._mapped: dict[int, int] = {}
        self.unmapped = self.ends = frozenset[int]()
        self._source_size = 1 + max(source.tokenizer.get_vocab().values())
        if self.by_ids:
            self._map_added_tokens()

    def _map_added_tokens(self) -> None:
        sink_ids = {text: i for i, text in self.sink.added_tokens.items()}
        unmapped = set()
        for i, text in self.source.added_tokens.items():
            counterpart = sink_ids.get(text)
            if i in self.source.end_ids and counterpart not in self.sink.end_ids:
                counterpart = self.sink.end_id
            if counterpart is None:
                unmapped.add(i)
            elif counterpart != i:
                self._mapped[i] = counterpart
        self.unmapped = frozenset(unmapped)
        base_ids = self.sink.end_ids - self.source.added_tokens.keys()
        added_ids = {i for i in self.source.added_tokens if self._mapped.get(i, i) in self.sink.end_ids}
        self.ends = frozenset(i for i in base_ids | added_ids if i not in unmapped and i < self._source_size)

    def ids(self, source_ids: Sequence[int]) -> list[int]:
        """Translates output tokens, up to the end of the text or the first token without a counterpart in the sink."""
        if not self.by_ids:
            ends = [self.sink.end_id] if source_ids and source_ids[-1] in self.source.end_ids else []
            translated = self.sink.encode(self.source.decode(source_ids)) + ends
            end = next((n for n, i in enumerate(translated, 1) if i in self.sink.end_ids), None)
            return translated[:end]
        translated = []
        for i in source_ids:
            if i in self.unmapped or i >= self._source_size:
                break
            translated.append(self._mapped.get(i, i))
        return translated

    def context_ids(self, source_ids: Sequence[int]) -> list[int]:
        """Translates context tokens. Tokens without a counterpart are passed on as text, not cut off."""
        if not self.unmapped.intersection(source_ids):
            return self.ids(source_ids)
        return self.sink.encode(self.source.decode(source_ids))

    def distributions(self, source: Tensor) -> Tensor:
        """Reorders the columns of `[tokens, vocabulary]` from source to sink ids.

        Tokens without a counterpart, and ids beyond the source's tokenizer, lose their probability: rows may sum to
        less than 1.
        """
        padding = source[:, self._source_size :]
        has_padding_mass = padding.numel() > 0 and bool((padding > 0).any())
        if not self._mapped and not self.unmapped and not has_padding_mass:
            return source
        width = max(source.shape[1], 1 + max(self._mapped.values(), default=0))
        moved = source.new_zeros(len(source), width)
        moved[:, : self._source_size] = source[:, : self._source_size]
        moved[:, [*self._mapped, *self.unmapped]] = 0
        for i, j in self._mapped.items():
            moved[:, j] += source[:, i]
        return moved
