"""Traces: the decisions of requests, recorded by a benchmark or synthetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from semanticspec.benchmark.methods import METHODS, split_name
from semanticspec.benchmark.rows import Row
from semanticspec.errors import BenchmarkError, ConfigError

Proposals = tuple[tuple[int, int], ...]
_NOT_PLAYED = ("target", "draft", "token")  # these verify no whole segments


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration of the decoding loop, in target tokens.

    Attributes:
        drafted: length of the drafted segment; 0 if the target writes without a draft.
        accepted: the verdict; None if nothing was drafted, or the draft was dropped without a verdict.
        kept: drafted tokens that are kept: all of an accepted segment, a prefix of a rejected one.
        written: tokens that the target then writes, including the token after a kept prefix.
        bonus: a token from the verification pass follows an accepted segment.
        proposals: how `written` was proposed and kept, if recorded; see `Segment.proposals`.
    """

    drafted: int = 0
    accepted: bool | None = None
    kept: int = 0
    written: int = 0
    bonus: bool = False
    proposals: Proposals = ()

    @property
    def num_tokens(self) -> int:
        """Output tokens."""
        return self.kept + self.written + self.bonus


@dataclass(frozen=True, slots=True)
class Trace:
    """The decisions of one request."""

    name: str
    prompt_tokens: int
    steps: tuple[Step, ...]

    @property
    def num_tokens(self) -> int:
        """Output tokens."""
        return sum(step.num_tokens for step in self.steps)


def recorded(
    rows: Sequence[Row], methods: Mapping[str, Any], method: str, limit: int | None = None
) -> list[Trace]:
    """Returns the decisions of a method in a benchmark folder, one trace per sample of a problem.

    Args:
        rows: all rows of the folder.
        methods: the methods' descriptions in `config.json`.
        limit: use only the first `limit` requests; None = all.

    Raises:
        ConfigError: the folder has no rows, none of this method, or none with verdicts.
        BenchmarkError: the segments of a row do not add up to its output.
    """
    there = list(dict.fromkeys(row.method for row in rows))
    if not there:
        raise ConfigError("the folder has no rows to replay; run the benchmark first, or use --synthetic")
    playable = [name for name in there if _judges(name)]
    if method not in there:
        raise ConfigError(
            f"the folder has no rows of {method!r}; methods to replay: {', '.join(playable) or 'none'}"
        )
    own = [row for row in rows if row.method == method and not row.failed][:limit]
    if method not in playable or not any(row.segments_accepted + row.segments_rejected for row in own):
        raise ConfigError(
            f"{method!r} has no verdicts on drafted segments, so there is nothing to replay; "
            f"choose from {', '.join(playable) or 'another folder'}"
        )
    bonus = bool(methods.get(method, {}).get("config", {}).get("bonus_token"))
    return [trace_of(row, bonus_token=bonus) for row in own]


def trace_of(row: Row, *, bonus_token: bool) -> Trace:
    """Returns the decisions of one request.

    Raises:
        BenchmarkError: the segments do not add up to the output.
    """
    steps: list[Step] = []
    for segment in row.segments:
        last = steps[-1] if steps else Step()
        if segment.accepted is not None:
            kept = segment.num_tokens if segment.accepted else 0
            steps.append(Step(segment.num_tokens, segment.accepted, kept))
        elif segment.author == "draft":
            steps[-1] = replace(last, kept=segment.num_tokens)
        elif last.accepted and bonus_token and not last.bonus and segment.num_tokens == 1:
            steps[-1] = replace(last, bonus=True)
        elif last.accepted is False and not last.proposals:
            written = last.written + segment.num_tokens
            steps[-1] = replace(last, written=written, proposals=segment.proposals)
        else:
            steps.append(Step(written=segment.num_tokens, proposals=segment.proposals))
    # A draft that was dropped without a verdict left the rest to the target; it came before the last step.
    if dropped := row.drafted_tokens - sum(step.drafted for step in steps):
        steps.insert(len(steps) - 1, Step(dropped))
    trace = Trace(f"{row.problem_id}/{row.sample}", row.prompt_tokens, tuple(steps))
    if trace.num_tokens != row.num_tokens or dropped < 0:
        raise BenchmarkError(
            f"the segments of {row.method} on {row.problem_id} hold {trace.num_tokens} tokens and its output "
            f"{row.num_tokens}; delete this row and run the benchmark again"
        )
    return trace


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Settings of a synthetic trace.

    Attributes:
        num_tokens, prompt_tokens: length of output and prompt.
        segment_tokens: mean length of a segment; lengths are uniform between half and one and a half times of it.
        draft_share: share of the output in accepted segments.
        kept_share: share of a rejected segment that is kept, in [0, 1).
    """

    num_tokens: int = 1000
    prompt_tokens: int = 100
    segment_tokens: int = 35
    draft_share: float = 0.8
    kept_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_tokens", "prompt_tokens", "segment_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.draft_share <= 1:
            raise ConfigError(f"the draft's share is {self.draft_share}; expected a number from 0 to 1")
        if not 0 <= self.kept_share < 1:
            raise ConfigError(f"the kept share is {self.kept_share}; expected a number from 0, below 1")


def synthetic(wanted: Synthetic, name: str, seed: int) -> Trace:
    """Makes a synthetic trace. The seed gives the lengths and which segments are rejected, whatever is kept of them.

    The target writes as many tokens as the rejected segment has. A short trace also has the requested share of
    rejected tokens, up to half a segment.
    """
    random = Random(f"{seed}:{name}")
    lengths: list[int] = []
    while (left := wanted.num_tokens - sum(lengths)) > 0:
        longest = wanted.segment_tokens + wanted.segment_tokens // 2
        lengths.append(min(left, random.randint(math.ceil(wanted.segment_tokens / 2), longest)))
    rejected = _picked(lengths, (1 - wanted.draft_share) * wanted.num_tokens, random)
    steps = []
    for index, length in enumerate(lengths):
        kept = math.floor(wanted.kept_share * length) if index in rejected else length
        steps.append(Step(length, index not in rejected, kept, length - kept))
    return Trace(name, wanted.prompt_tokens, tuple(steps))


def _picked(lengths: Sequence[int], wanted_tokens: float, random: Random) -> set[int]:
    """Picks random segments until another one would move the total further away from the wanted number of tokens."""
    picked: set[int] = set()
    total = 0
    for index in random.sample(range(len(lengths)), len(lengths)):
        if abs(total + lengths[index] - wanted_tokens) <= abs(total - wanted_tokens):
            picked.add(index)
            total += lengths[index]
    return picked


def token_acceptance(traces: Sequence[Trace]) -> float | None:
    """Returns the share of verified proposed tokens that were kept; None if no proposals are recorded."""
    passed = failed = 0
    for trace in traces:
        for step in trace.steps:
            passed += sum(kept for _, kept in step.proposals)
            failed += sum(kept < proposed for proposed, kept in step.proposals)
    return passed / (passed + failed) if passed + failed else None


def _judges(method: str) -> bool:
    """Whether a method verifies drafted segments one by one, as the plain loop does."""
    base, _ = split_name(method)
    return base in METHODS and base not in _NOT_PLAYED and "candidates" not in method.split("+")
