"""Statistics of an output that a stop string ends before the decoding loop reports them, counted from its events."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import replace

from semanticspec.records import Event, Segment, SegmentDecided, SegmentDrafted, Stats, TextWritten


class EventTally:
    """Counts events as they arrive.

    The time since the previous event is assigned to the phase that ends with the event. Probes run between draft and
    decision, so their time counts as verification.

    Attributes:
        segments: as in `Result.segments`, except that adjacent text by the target is one segment.
    """

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self._counts: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started = self._last_event = time.perf_counter()

    def add(self, event: Event) -> None:
        now = time.perf_counter()
        elapsed_s, self._last_event = now - self._last_event, now
        if isinstance(event, SegmentDrafted):
            self._counts["drafted_tokens"] += event.num_tokens
            self._seconds["draft"] += elapsed_s
        elif isinstance(event, SegmentDecided):
            self._counts["segments_accepted" if event.segment.accepted else "segments_rejected"] += 1
            self._seconds["verify"] += elapsed_s
            self.segments.append(event.segment)
        elif isinstance(event, TextWritten):
            self._counts["num_tokens"] += len(event.token_ids)
            if event.author == "draft":
                self._counts["draft_tokens"] += len(event.token_ids)
            else:
                self._seconds["rewrite"] += elapsed_s
            self._add_text(event)

    def _add_text(self, event: TextWritten) -> None:
        """Adds a segment for text by the target, or for the part of a rejected segment that was kept."""
        last = self.segments[-1] if self.segments else None
        text, num_tokens = event.text, len(event.token_ids)
        if last is not None and last.author == event.author == "target":
            self.segments[-1] = replace(last, text=last.text + text, num_tokens=last.num_tokens + num_tokens)
        elif event.author == "target" or last is None or not last.accepted:
            self.segments.append(Segment(event.author, text, num_tokens))

    def stats(self, prompt_tokens: int) -> Stats:
        """Returns the counts so far; `wall_s` is the time since the tally was created."""
        return replace(
            Stats(prompt_tokens, **self._counts),
            wall_s=time.perf_counter() - self._started,
            draft_s=self._seconds["draft"],
            verify_s=self._seconds["verify"],
            rewrite_s=self._seconds["rewrite"],
        )
