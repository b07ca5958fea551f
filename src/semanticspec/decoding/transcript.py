"""The state of one request: its output so far in both models' tokens, its segments, and why it ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from semanticspec.config import DecodingConfig
from semanticspec.decoding.clock import Clock
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.repetition import RepetitionDetector
from semanticspec.errors import PromptError
from semanticspec.records import (
    Author,
    Event,
    Result,
    Segment,
    SegmentText,
    SpeculationEnded,
    Stats,
    StopReason,
    TextWritten,
    ThinkingEnded,
    Verdict,
)
from semanticspec.text.chat import Prompt, prompt_text
from semanticspec.text.filters import StopStringFilter, TextPiece
from semanticspec.text.translation import TranslatedContext


class Transcript:
    """The output of one request, as token ids of the target, token ids of the draft, and text.

    Attributes:
        target_ids: prompt and output in the target's tokens.
        segments: everything that was decided or written, in order, see `Segment`; of what was kept, `result` adds the
            text.
        num_rejected: drafted segments that were rejected.
        drafted_tokens: tokens the draft wrote for segments, kept or not, in the target's tokens.
        thinking_ended: `</think>` is in the output.
        target_finishes: the target writes everything that is left.
        repetition: whether the output repeats itself.
        speculation_ended: where the target began to write alone; None if it did not.
        finish_reason: None while the request runs.
    """

    def __init__(self, pair: Pair, prompt: Prompt, config: DecodingConfig) -> None:
        """Renders the prompt.

        Raises:
            PromptError: the prompt is empty, or leaves no room for an answer.
        """
        self._pair, self._config = pair, config
        self.prompt_ids = pair.target.vocabulary.render_prompt(prompt)
        self._prompt_text = prompt_text(prompt)
        self.target_ids = list(self.prompt_ids)
        self._draft_prompt_ids = pair.render_draft_prompt(prompt, self.prompt_ids) if config.speculate else []
        self._draft_context = TranslatedContext(pair.to_draft, self._draft_prompt_ids)
        self._stream = pair.target.vocabulary.new_text_stream()
        self._think_tags = pair.target.vocabulary.think_tags
        self._prompt_opens_thinking = pair.target.vocabulary.opens_thinking(self.prompt_ids)
        self._stop_strings = StopStringFilter(config.stop)
        self._num_released = 0  # characters of the text that events have reported
        self._text_ends: list[int] = []  # length of the text after each output token
        self.text = ""
        self.segments: list[Segment] = []
        self.num_rejected = self.drafted_tokens = self._kept_draft_tokens = 0
        self.thinking_ended = False
        self.target_finishes = not config.speculate
        self.repetition = RepetitionDetector(config.max_repeated_tokens if config.speculate else 0)
        self.speculation_ended: SpeculationEnded | None = None
        self.finish_reason: StopReason | None = None
        self.limit = self._token_limit()

    def _token_limit(self) -> int:
        """The longest output in tokens: the configured limit, or what the target's context leaves.

        The draft's context may be shorter: the target writes alone where it ends.
        """
        context = self._pair.target.engine.info.max_context_tokens
        if len(self.prompt_ids) >= context:
            raise PromptError(
                f"the prompt has {len(self.prompt_ids)} tokens, and the target's context of {context} tokens must hold "
                "prompt and answer; shorten the prompt"
            )
        return min(self._config.max_new_tokens, context - len(self.prompt_ids))

    @property
    def draft_ids(self) -> list[int]:
        """Prompt and output in the draft's tokens, without an incomplete character at the end."""
        return self._draft_context.ids()

    @property
    def draft_can_continue(self) -> bool:
        """Whether the draft sees the whole output; where text is exchanged, it does not see a part of a character."""
        return self._pair.same_vocabulary or not self._draft_context.ends_inside_character

    @property
    def output_ids(self) -> list[int]:
        """The output in the target's tokens."""
        return self.target_ids[len(self.prompt_ids) :]

    @property
    def num_output_tokens(self) -> int:
        return len(self.target_ids) - len(self.prompt_ids)

    @property
    def room(self) -> int:
        """How many more tokens the output may have."""
        return self.limit - self.num_output_tokens

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None

    @property
    def stop_string_found(self) -> bool:
        """Whether a stop string has ended the output."""
        return self._stop_strings.found

    @property
    def at_segment_end(self) -> bool:
        """Whether the last token ends a segment."""
        before, last = self.target_ids[-2:]
        return self._pair.target.segmenter.stop.ends(before, last)

    def count_draft(self, draft: Draft) -> None:
        """Counts a drafted segment, whatever becomes of it."""
        self.drafted_tokens += len(draft.token_ids)

    def think_end(self, ids: Sequence[int]) -> int | None:
        """Returns how many of these ids of the target it takes to complete `</think>`; None if it does not occur."""
        return self._pair.target.segmenter.think_end(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids of the target."""
        return self._pair.target.vocabulary.decode(ids)

    def segment_text(self, draft: Draft) -> SegmentText:
        """Returns the text of a draft that would follow, and what comes before it."""
        return SegmentText(self._prompt_text, self.text, self.decode(draft.token_ids))

    def record_verdict(self, draft: Draft, verdict: Verdict, text: str) -> Segment:
        """Records the verdict on a drafted segment; its text is not output yet."""
        segment = Segment(
            author="draft",
            text=text,
            num_tokens=len(draft.token_ids),
            p_target=verdict.p_target,
            p_draft=verdict.p_draft,
            accepted=verdict.accepted,
            reason=verdict.reason,
        )
        self.segments.append(segment)
        self.num_rejected += not verdict.accepted
        return segment

    def keep(self, draft: Draft, verdict: Verdict) -> list[Event]:
        """Appends what a verdict keeps of a drafted segment, then the target's token that follows it, if any."""
        events: list[Event] = []
        if verdict.accepted:
            events += self.append_draft(draft.token_ids)
        elif verdict.num_kept:
            events += self.append_draft(draft.token_ids[: verdict.num_kept])
            self.record("draft", events)
        if verdict.next_id is not None and not self.ended and not self.target_finishes:
            added = self.append_target([verdict.next_id])
            self.record("target", added)
            events += added
        return events

    def record(
        self, author: Author, events: Sequence[Event], proposals: tuple[tuple[int, int], ...] = ()
    ) -> None:
        """Records output that no verdict was asked for: kept prefixes and what the target wrote.

        Args:
            events: those of the output.
        """
        num_tokens = sum(len(event.token_ids) for event in events if isinstance(event, TextWritten))
        self.segments.append(Segment(author, "", num_tokens, proposals=proposals))

    def append_draft(self, ids: Sequence[int]) -> list[Event]:
        """Appends drafted tokens that were kept, in the target's tokens."""
        return self._append("draft", ids)

    def draft_ids_after(self, ids: Sequence[int]) -> list[int]:
        """Returns `draft_ids` as they would be with drafted tokens kept, given in the target's tokens."""
        context = self._draft_context.copy()
        context.append(ids)
        return context.ids()

    def append_target(self, ids: Sequence[int]) -> list[Event]:
        """Appends tokens that the target wrote."""
        return self._append("target", ids)

    def _append(self, author: Author, ids: Sequence[int]) -> list[Event]:
        """Appends tokens up to the one that ends the text or completes a stop string; nothing follows it."""
        kept: list[int] = []
        pieces: list[TextPiece] = []
        thinking_end: int | None = None
        for token_id in ids:
            kept.append(token_id)
            pieces += self._decode_next(author, token_id)
            if not self.thinking_ended and self._think_tags.end in self.text:
                self.thinking_ended = True
                thinking_end = self.num_output_tokens + len(kept)
            if self._stop_strings.found or token_id in self._pair.target.vocabulary.end_ids:
                self.finish_reason = "stop"
                break
        self.target_ids += kept
        if self._config.speculate:
            self._draft_context.append(kept)
        self._kept_draft_tokens += len(kept) if author == "draft" else 0
        self.repetition.add(kept, by_draft=author == "draft")
        events = _text_events(pieces, author, kept)
        if thinking_end is not None:
            self.target_finishes = self.target_finishes or not self._config.speculate_answer
            events.append(ThinkingEnded(thinking_end))
        if not self.ended and self.room < 1:
            self.finish_reason = "length"
        return events

    def _decode_next(self, author: Author, token_id: int) -> list[TextPiece]:
        """Decodes one more token; returns the text that is final."""
        text = self._stream.push([token_id])
        self.text += text
        pieces = self._stop_strings.push(TextPiece(author, text))
        self._num_released += sum(len(piece.text) for piece in pieces)
        if self._stop_strings.found:
            self.text = self.text[: self._num_released]
        self._text_ends.append(len(self.text))
        return pieces

    def release_text(self) -> list[Event]:
        """Returns the text that was held back as a possible start of a stop string, once the request has ended."""
        return [TextWritten(who, text, ()) for who, text in _by_author(self._stop_strings.close())]

    def end_speculation(self, reason: str) -> SpeculationEnded:
        """Records that the target writes alone from here on."""
        self.speculation_ended = SpeculationEnded(reason, self.num_output_tokens)
        return self.speculation_ended

    def result(self, clock: Clock, *, lossy: bool) -> Result:
        """The finished request."""
        assert self.finish_reason is not None
        reasoning, answer = self._think_tags.split(self.text, opened=self._prompt_opens_thinking)
        return Result(
            text=self.text,
            token_ids=tuple(self.output_ids),
            segments=tuple(self._segments_of_output()),
            stats=self.stats(clock),
            finish_reason=self.finish_reason,
            lossy=lossy,
            reasoning=reasoning,
            answer=answer,
            speculation_ended=self.speculation_ended,
        )

    def _segments_of_output(self) -> list[Segment]:
        """Returns all segments. Those that were kept join to the output, up to where a stop string ends it.

        A character that two segments share belongs to the one that completes it.
        """
        segments = []
        start = start_token = 0
        for segment in self.segments:
            if segment.accepted is not False:
                end_token = min(start_token + segment.num_tokens, self.num_output_tokens)
                end = min(self._text_ends[end_token - 1], len(self.text)) if end_token else 0
                text = self.text[start:end]
                segment = replace(segment, text=text, num_tokens=end_token - start_token)
                start, start_token = end, end_token
            segments.append(segment)
        return segments

    def stats(self, clock: Clock) -> Stats:
        """Counts and seconds so far."""
        accepted = [segment.accepted for segment in self.segments]
        return Stats(
            prompt_tokens=len(self.prompt_ids),
            num_tokens=self.num_output_tokens,
            draft_tokens=self._kept_draft_tokens,
            drafted_tokens=self.drafted_tokens,
            segments_accepted=accepted.count(True),
            segments_rejected=accepted.count(False),
            wall_s=clock.wall_s,
            draft_s=clock.seconds["draft"],
            verify_s=clock.seconds["verify"],
            rewrite_s=clock.seconds["rewrite"],
            probe_s=clock.seconds["probe"],
        )


def _text_events(pieces: Sequence[TextPiece], author: Author, ids: Sequence[int]) -> list[Event]:
    """Returns an event for the new tokens, after events for text by others that had been held back until now."""
    runs = _by_author(pieces)
    text = runs.pop()[1] if runs and runs[-1][0] == author else ""
    return [*(TextWritten(who, held, ()) for who, held in runs), TextWritten(author, text, tuple(ids))]


def _by_author(pieces: Iterable[TextPiece]) -> list[tuple[Author, str]]:
    """Joins neighbouring pieces by the same author."""
    return [
        (who, "".join(piece.text for piece in run))
        for who, run in groupby(pieces, lambda piece: piece.author)
    ]
