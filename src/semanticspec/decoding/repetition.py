"""Notices an output that repeats itself.

A draft that has fallen into a loop is easy to predict, so that nearly everything it writes is accepted: speculation
would run to the length limit at full speed. The loop ends speculation instead and the target writes on.
"""

from __future__ import annotations

from collections.abc import Sequence

_MAX_PERIOD = 256
"""Longest repeated n-gram that is noticed, in tokens."""
_MIN_DRAFT_SHARE = 0.5
"""Share of the repetition that the draft must have written; after a short proposal the target adds a token."""


class RepetitionDetector:
    """Looks for an n-gram at the output's end that occurs three times or more in a row.

    What it says depends on the output and on who wrote it, never on a draft that was not kept. Whether to speculate
    can therefore depend on it in a lossless configuration.
    """

    def __init__(self, max_repeated_tokens: int) -> None:
        """Args:
        max_repeated_tokens: how many tokens must repeat earlier ones; 0 = never notice anything.
        """
        self._min_tokens = max_repeated_tokens
        self._ids: list[int] = []
        self._by_draft: list[bool] = []
        # At index p - 1: how many of the last tokens equal the token p places before.
        self._repeated: list[int] = []

    def add(self, ids: Sequence[int], *, by_draft: bool) -> None:
        """Appends output tokens."""
        if not self._min_tokens:
            return
        for token_id in ids:
            before = reversed(self._ids[-_MAX_PERIOD:])
            counts = [*self._repeated, 0] if len(self._ids) <= _MAX_PERIOD else self._repeated
            self._repeated = [
                count + 1 if earlier == token_id else 0
                for count, earlier in zip(counts, before, strict=False)
            ]
            self._ids.append(token_id)
            self._by_draft.append(by_draft)

    @property
    def found(self) -> bool:
        """Whether the output's end repeats itself, written by the draft."""
        return any(
            count >= max(self._min_tokens, 2 * period)
            and sum(self._by_draft[-count - period :]) >= _MIN_DRAFT_SHARE * (count + period)
            for period, count in enumerate(self._repeated, 1)
        )
