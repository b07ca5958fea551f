"""A file of recorded segments, with the recording pair's estimates and verdicts; see `agreement`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from experiments.engine_agreement.agreement import Agreement, Judged, RecordedSegment, compare, judge, record
from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ProbeError
from semanticspec.output.journal import Journal
from semanticspec.problems.sources import ProblemText

_FORMAT = 1


class Recordings:
    """A JSONL file: a header with the settings of the recording, then one line per problem.

    Raises:
        ProbeError: the file exists and is not a recording.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self.path = path
        lines = self._journal.read()
        self.header = lines[0] if lines else {}
        self._problems = lines[1:]
        if lines and self.header.get("format") != _FORMAT:
            raise ProbeError(f"{path} holds no recorded segments; name another file")

    def __len__(self) -> int:
        """Returns the number of segments."""
        return sum(len(problem["segments"]) for problem in self._problems)

    @property
    def segments(self) -> list[tuple[RecordedSegment, Judged]]:
        """All segments, each with the recording pair's judgement."""
        return [
            (
                RecordedSegment(*(tuple(entry["segment"][name]) for name in RecordedSegment.__slots__)),
                Judged(**entry["judged"]),
            )
            for problem in self._problems
            for entry in problem["segments"]
        ]

    @property
    def rule(self) -> RuleConfig:
        """The rule that the segments were judged by."""
        return RuleConfig(**self.header["rule"])

    async def extend(
        self,
        pair: Pair,
        problems: Sequence[ProblemText],
        config: DecodingConfig,
        num_segments: int,
        on_segment: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Records problem by problem until there are enough segments; recorded problems are skipped.

        Args:
            on_segment: called for each segment, once its problem is saved.

        Raises:
            ProbeError: the file was recorded with other settings, or the problems give too few segments.
        """
        header = _header(pair, config)
        if not self.header:
            self._journal.append([header])
            self.header = header
        if self.header != header:
            differing = ", ".join(name for name in header if self.header.get(name) != header[name])
            raise ProbeError(
                f"{self.path} was recorded with another {differing}; name another file, or delete it"
            )
        recorded_ids = {problem["problem"] for problem in self._problems}
        for problem in problems:
            start = len(self)
            if start >= num_segments:
                return
            if problem.problem_id in recorded_ids:
                continue
            recorded = await record(pair, problem.prompt, config)
            judged = [
                await judge(pair, segment, config.rule, _seed(start + index))
                for index, segment in enumerate(recorded)
            ]
            entries = [
                {"segment": asdict(segment), "judged": asdict(verdict)}
                for segment, verdict in zip(recorded, judged, strict=True)
            ]
            line = {"problem": problem.problem_id, "segments": entries}
            self._journal.append([line])
            self._problems.append(line)
            for _ in entries:
                on_segment("")
        if len(self) < num_segments:
            raise ProbeError(
                f"{len(problems)} problems gave {len(self)} segments, expected {num_segments}; they "
                f"are kept in {self.path}; give more problems, or ask for fewer segments"
            )

    async def compare(
        self, pair: Pair, num_segments: int | None = None, on_segment: Callable[[str], None] = lambda _: None
    ) -> Agreement:
        """Judges the recorded segments with the engines of another pair.

        Args:
            num_segments: only the first `num_segments`; None = all.

        Raises:
            ProbeError: the segments were recorded with other tokenizers, or there are fewer than two.
        """
        if self.header["vocabularies"] != _vocabularies(pair):
            raise ProbeError(
                f"{self.path} was recorded with other tokenizers ({self.header['pair']}); name the same models"
            )
        if len(self) < 2:
            raise ProbeError(f"{self.path} holds {len(self)} segments; record two or more")
        rule = self.rule
        reference: list[Judged] = []
        found: list[Judged] = []
        for index, (segment, judged) in enumerate(islice(self.segments, num_segments)):
            reference.append(judged)
            found.append(await judge(pair, segment, rule, _seed(index)))
            on_segment("")
        return compare(reference, found)


def table(name: str, agreement: Agreement) -> str:
    """Returns the figures as a Markdown table."""
    lines = [
        "| engine | segments | same verdict | p of the target: median difference | 95th percentile | max "
        "| p of the draft: median difference | 95th percentile | max |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    figures = " | ".join(f"{figure:.1e}" for figure in (*agreement.target, *agreement.draft))
    lines.append(f"| {name} | {agreement.num_segments} | {agreement.share:.1%} | {figures} |")
    return "\n".join(lines)


def figures(name: str, recordings: Recordings, agreement: Agreement) -> dict[str, Any]:
    """Returns the figures for `--json`."""
    return {
        "engine": name,
        "recorded": {key: recordings.header[key] for key in ("pair", "rule")},
        "same_verdict_share": agreement.share,
        **asdict(agreement),
    }


def _header(pair: Pair, config: DecodingConfig) -> dict[str, Any]:
    rule = asdict(config.rule)
    del rule["accept_rate_by_length"]  # unused by the semantic rule, and JSON has no tuples
    return {
        "format": _FORMAT,
        "pair": pair.name,
        "vocabularies": _vocabularies(pair),
        "rule": rule,
        "sampling": asdict(config.sampling),
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
    }


def _vocabularies(pair: Pair) -> list[str]:
    return [pair.target.vocabulary.fingerprint, pair.draft.vocabulary.fingerprint]


def _seed(index: int) -> int:
    """Returns the seed of a segment, which does not depend on other segments."""
    return derived_seed(0, "recorded segment", index)
