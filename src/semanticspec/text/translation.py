"""Translation of tokens between the vocabularies of a draft and a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from semanticspec.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from semanticspec.distributions import Distributions, Ids

# Tokenizers do not merge tokens across these places, so that the paragraphs of a text can be encoded one by one.
_PARAGRAPHS = re.compile(r"(?<=\n\n)(?=\S)")


class Translation:
    """Maps token ids from a source to a sink vocabulary.

    Vocabularies with the same base tokens exchange ids; added tokens are mapped by name, end-of-text tokens by role.
    Other vocabularies exchange text, which is tokenized again, with the think tags of the sink.

    Attributes:
        by_ids: whether ids are exchanged, not text.
        unmapped: added and padding tokens of the source that the sink does not have; only with `by_ids`.
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
        known = self.source.base_tokens.keys() | self.source.added_tokens.values()
        unmapped = {i for text, i in self.source.tokenizer.get_vocab().items() if text not in known}
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
        """Translates output tokens, up to the end of the text or the first token without a counterpart in the sink.

        Where text is exchanged, an incomplete character at the end is left out.
        """
        if not self.by_ids:
            return self._ids_of_text(source_ids)
        translated = []
        for i in source_ids:
            if i in self.unmapped or i >= self._source_size:
                break
            translated.append(self._mapped.get(i, i))
        return translated

    def num_usable(self, source_ids: Sequence[int]) -> int:
        """Returns how many leading source tokens can be translated: where text is exchanged, whole characters."""
        return len(source_ids) if self.by_ids else self.source.complete_length(source_ids)

    def context_ids(self, source_ids: Sequence[int]) -> list[int]:
        """Translates the tokens of an output to the context that another model continues.

        Tokens without a counterpart are passed on as text. Where text is exchanged, pass the whole output: the ids of a
        part depend on what is around it.
        """
        if not self.by_ids:
            text = self.source.decode(source_ids[: self.num_usable(source_ids)])
            return [i for paragraph in _PARAGRAPHS.split(text) for i in self.encode(paragraph)]
        translated: list[int] = []
        for i in source_ids:
            is_missing = i in self.unmapped or i >= self._source_size
            translated += (
                self.sink.encode(self.source.decode([i])) if is_missing else [self._mapped.get(i, i)]
            )
        return translated

    def encode(self, text: str) -> list[int]:
        """Returns the sink's ids of a text of the source."""
        own, other = self.source.think_tags, self.sink.think_tags
        if own != other:
            text = text.replace(own.whole_end, own.end).replace(own.start, other.start)
            text = text.replace(own.end, other.whole_end)
        return self.sink.encode(text)

    def _ids_of_text(self, source_ids: Sequence[int]) -> list[int]:
        end = next((n for n, i in enumerate(source_ids) if i in self.source.end_ids), len(source_ids))
        length = self.source.complete_length(source_ids[:end])
        translated = self.encode(self.source.decode(source_ids[:length]))
        if end == length < len(source_ids):
            translated.append(self.sink.end_id)
        unknown = self.sink.tokenizer.unk_token_id
        for n, i in enumerate(translated):
            if i == unknown and i not in self.sink.end_ids:
                return translated[:n]
            if i in self.sink.end_ids:
                return translated[: n + 1]
        return translated

    def distributions(self, source: Distributions) -> Distributions:
        """Translates distributions over the source's tokens, where ids are exchanged.

        Tokens without a counterpart, and ids beyond the source's tokenizer, lose their probability: the rest may sum to
        less than 1.
        """
        return [row.translated(self._sink_ids) for row in source]

    @cached_property
    def _sink_ids(self) -> Ids:
        """The sink's token for each id of the source; -1 if there is none."""
        import numpy as np

        ids = np.arange(self._source_size)
        ids[list(self._mapped)] = list(self._mapped.values())
        ids[list(self.unmapped)] = -1
        return ids


class TranslatedContext:
    """A prompt and its output so far in the sink's tokens.

    Where text is exchanged, the ids depend on the whole output only, not on the parts in which it was appended.
    """

    def __init__(self, translation: Translation, prompt_ids: Sequence[int]) -> None:
        """Starts with the prompt in the sink's tokens."""
        self._translation = translation
        self._ids = list(prompt_ids)
        self._stream = translation.source.new_text_stream()
        self._open_text = ""  # its tokens can still change

    def append(self, source_ids: Sequence[int]) -> None:
        """Appends output in the source's tokens."""
        if self._translation.by_ids:
            self._ids += self._translation.context_ids(source_ids)
            return
        self._open_text += self._stream.push(source_ids)
        *paragraphs, self._open_text = _PARAGRAPHS.split(self._open_text)
        for paragraph in paragraphs:
            self._ids += self._translation.encode(paragraph)

    def ids(self) -> list[int]:
        """Returns the context in the sink's tokens, without an incomplete character at its end."""
        return [*self._ids, *self._translation.encode(self._open_text)] if self._open_text else self._ids

    @property
    def ends_inside_character(self) -> bool:
        """Whether the context lacks the beginning of a character that is not complete yet."""
        return bool(self._stream.held)

    def copy(self) -> TranslatedContext:
        """Returns a context that can be extended without changing this one."""
        copied = TranslatedContext(self._translation, self._ids)
        copied._open_text = self._open_text
        copied._stream.push(self._stream.held)
        return copied


def describe_difference(target: Vocabulary, draft: Vocabulary, num_examples: int = 3) -> str:
    """Says how the ordinary tokens of two vocabularies differ, with examples, for an error message."""
    ours, theirs = target.base_tokens, draft.base_tokens
    moved = sorted((t for t in ours if t in theirs and ours[t] != theirs[t]), key=ours.__getitem__)
    parts = []
    if moved:
        examples = (
            f"{t!r} ({ours[t]} in the target, {theirs[t]} in the draft)" for t in moved[:num_examples]
        )
        parts.append(f"other ids for {len(moved):,} tokens: {', '.join(examples)}")
    for role, own, other in (("target", ours, theirs), ("draft", theirs, ours)):
        lone = sorted((t for t in own if t not in other), key=own.__getitem__)
        if lone:
            shown = map(repr, lone[:num_examples])
            parts.append(f"tokens of the {role} only: {len(lone):,}, such as {', '.join(shown)}")
    return "; ".join(parts) or "the same tokens with other merges"
