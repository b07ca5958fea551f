"""What a request has written so far, in both models' tokens, and where its seconds went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from semanticspec.decoding.pair import Pair
from semanticspec.records import Author, Event, Stats, TextWritten, ThinkingEnded
from semanticspec.text.chat import THINK_END, THINK_START, Prompt


class Transcript:
    """The output of one request, kept as the target's ids, the draft's ids and text.

    Attributes:
        target_ids, draft_ids: prompt and output, each in the model's own tokens.
        output_ids: the output in the target's tokens.
        draft_tokens: how many of them the draft wrote.
        thinking_ended: `</think>` is in the output.
        ended: an end-of-text token is in the output.
    """

    def __init__(self, pair: Pair, prompt: Prompt, *, with_draft: bool = True) -> None:
        self._pair = pair
        self.prompt_ids = pair.target.vocabulary.render_prompt(prompt)
        self.target_ids = list(self.prompt_ids)
        self._with_draft = with_draft
        self.draft_ids = pair.draft.vocabulary.render_prompt(prompt) if with_draft else []
        self._stream = pair.target.vocabulary.new_text_stream(self.prompt_ids)
        self._opened = pair.target.vocabulary.opens_thinking(self.prompt_ids)
        self.text = ""
        self.draft_tokens = 0
        self.thinking_ended = self.ended = False

    @property
    def output_ids(self) -> list[int]:
        return self.target_ids[len(self.prompt_ids) :]

    @property
    def num_output_tokens(self) -> int:
        return len(self.target_ids) - len(self.prompt_ids)

    def append_draft(self, ids: Sequence[int], draft_ids: Sequence[int] | None) -> list[Event]:
        """Appends drafted tokens that were kept.

        Args:
            ids: in the target's tokens.
            draft_ids: the same in the draft's, None to translate them.
        """
        self.draft_tokens += len(ids)
        self.draft_ids = self.draft_context(ids, draft_ids)
        return self._append("draft", ids)

    def draft_context(self, ids: Sequence[int], draft_ids: Sequence[int] | None) -> list[int]:
        """What `draft_ids` would be with drafted tokens kept; arguments as of `append_draft`."""
        if draft_ids is None:
            draft_ids = self._pair.to_draft.context_ids(ids)
        elif self._pair.same_vocabulary:
            draft_ids = draft_ids[: len(ids)]
        return [*self.draft_ids, *draft_ids]

    def append_target(self, ids: Sequence[int]) -> list[Event]:
        """Appends tokens the target wrote."""
        if self._with_draft:
            self.draft_ids += self._pair.to_draft.context_ids(ids)
        return self._append("target", ids)

    def _append(self, author: Author, ids: Sequence[int]) -> list[Event]:
        self.target_ids += ids
        text = self._stream.push(ids)
        self.text += text
        self.ended = bool(ids) and ids[-1] in self._pair.target.vocabulary.end_ids
        return [TextWritten(author, text, tuple(ids))]

    def notice_thinking_end(self) -> list[Event]:
        """One event the first time `</think>` is in the output."""
        if self.thinking_ended or THINK_END not in self.text:
            return []
        self.thinking_ended = True
        return [ThinkingEnded(self.num_output_tokens)]

    def split_answer(self) -> tuple[str, str]:
        """Text before and after `</think>`, without the tags; all is reasoning where there is none."""
        reasoning, tag, answer = self.text.partition(THINK_END)
        if not tag and not self._opened and THINK_START not in reasoning:
            return self.text, ""
        return reasoning.replace(THINK_START, "", 1).strip("\n"), answer.lstrip("\n")


class Clock:
    """Wall-clock seconds of one request, by phase.

    Attributes:
        seconds: so far, by the name of the phase.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds = {"draft": 0.0, "verify": 0.0, "rewrite": 0.0, "probe": 0.0}
        self._told: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def lap(self, *phases: str) -> float:
        """Seconds spent in these phases since they were last asked for."""
        seconds = sum(self.seconds[name] - self._told.get(name, 0.0) for name in phases)
        self._told.update((name, self.seconds[name]) for name in phases)
        return seconds

    def stats(self, counts: Stats) -> Stats:
        """The counts together with the seconds so far."""
        return replace(
            counts,
            wall_s=time.perf_counter() - self._start,
            draft_s=self.seconds["draft"],
            verify_s=self.seconds["verify"],
            rewrite_s=self.seconds["rewrite"],
            probe_s=self.seconds["probe"],
        )
