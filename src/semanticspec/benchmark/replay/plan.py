"""Turns decisions into a plan of engine calls, for given optimizations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random

from semanticspec.benchmark.replay.options import REPLAYED_OPTIMIZATIONS
from semanticspec.benchmark.replay.trace import Proposals, Step, Trace
from semanticspec.config import (
    DecodingConfig,
    RuleConfig,
    optimization_names,
    target_alone,
    with_optimizations,
)
from semanticspec.decoding.adaptive import ProposalSize
from semanticspec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Turn:
    """One iteration of the loop, in target tokens.

    Attributes:
        drafted: length of the drafted segment; 0 = none.
        judged: the segment is verified.
        accepted: the verdict.
        checked: partial acceptance scores the segment's tokens.
        kept: drafted tokens that are kept.
        free: 1 if the verification adds a token of the target.
        streamed: tokens that the target then decodes by itself.
        proposals: what the target writes by token-level speculation instead; a pair (proposed, kept) per proposal.
        proposed_out: output tokens that come from the proposals.
    """

    drafted: int = 0
    judged: bool = False
    accepted: bool = False
    checked: bool = False
    kept: int = 0
    free: int = 0
    streamed: int = 0
    proposals: Proposals = ()
    proposed_out: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a plan, or of what was done.

    Attributes:
        num_tokens: output tokens; draft_tokens: those from drafted segments.
        drafted_tokens, proposed_tokens: tokens the draft wrote for segments and for proposals.
        verify_passes: verifications of segments.
        checks: segments and proposals that the token rule verified.
        streamed_tokens: tokens the target decoded by itself.
    """

    num_tokens: int = 0
    draft_tokens: int = 0
    drafted_tokens: int = 0
    proposed_tokens: int = 0
    verify_passes: int = 0
    checks: int = 0
    streamed_tokens: int = 0

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """All turns of a request.

    Attributes:
        config: configuration of the loop.
    """

    prompt_tokens: int
    turns: tuple[Turn, ...]
    config: DecodingConfig

    def counts(self) -> Counts:
        """Returns the totals of all turns."""
        turns = self.turns
        return Counts(
            num_tokens=sum(turn.kept + turn.free + turn.streamed + turn.proposed_out for turn in turns),
            draft_tokens=sum(turn.kept for turn in turns),
            drafted_tokens=sum(turn.drafted for turn in turns),
            proposed_tokens=sum(proposed for turn in turns for proposed, _ in turn.proposals),
            verify_passes=sum(turn.judged for turn in turns),
            checks=sum(turn.checked + sum(p > 0 for p, _ in turn.proposals) for turn in turns),
            streamed_tokens=sum(turn.streamed + sum(p == 0 for p, _ in turn.proposals) for turn in turns),
        )


def parse_combination(text: str) -> tuple[str, ...]:
    """Returns the optimizations of a combination such as `partial-acceptance+overlap`.

    Raises:
        ConfigError: a name is unknown, cannot be replayed or is given twice.
    """
    names = optimization_names(text.split("+"))
    if not set(names) <= set(REPLAYED_OPTIMIZATIONS) or len(set(names)) < len(names):
        raise ConfigError(
            f"{text!r} cannot be replayed; expected any of {', '.join(REPLAYED_OPTIMIZATIONS)}, joined by +"
        )
    return names


def target_plan(trace: Trace) -> Plan:
    """The target alone writes as many tokens as the trace has."""
    return Plan(trace.prompt_tokens, (Turn(streamed=trace.num_tokens),), target_alone(DecodingConfig()))


def loop_plan(trace: Trace, optimizations: Sequence[str], acceptance: float | None, seed: int) -> Plan:
    """The loop with these optimizations. All plans of a trace give outputs of one length.

    Without partial acceptance nothing is kept of a rejected segment: the target writes that prefix too.

    Args:
        acceptance: probability that a proposed token is kept, where the trace does not say; may be None if it does,
            or if nothing is proposed.

    Raises:
        ConfigError: the acceptance is needed and not given.
    """
    config = replace(
        with_optimizations(DecodingConfig(), optimizations),
        rule=RuleConfig("always"),
        max_segment_tokens=max(1, *(step.drafted for step in trace.steps)),
        speculate_answer=True,  # whether the target writes the answer is part of the trace
        bonus_token=any(step.bonus for step in trace.steps),
        judge_think_end=not any(step.drafted and step.accepted is None for step in trace.steps),
    )
    proposer = _Proposer(config.num_speculative_tokens or 0, acceptance, Random(f"{seed}:{trace.name}"))
    turns = tuple(_turn(step, config, proposer) for step in trace.steps)
    return Plan(trace.prompt_tokens, turns, config)


def _turn(step: Step, config: DecodingConfig, proposer: _Proposer) -> Turn:
    rejected = step.accepted is False
    checked = rejected and bool(config.partial_acceptance)
    kept = step.kept if step.accepted or checked else 0
    to_write = step.num_tokens - kept - step.bonus
    # Partial acceptance adds the token that replaces the first one it rejects.
    replaced = int(checked and to_write > 0 and kept < step.drafted)
    to_write -= replaced
    proposals: Proposals = ()
    if config.num_speculative_tokens:
        proposals = tuple(proposer.proposals(to_write, step.proposals))
    return Turn(
        drafted=step.drafted,
        judged=step.accepted is not None,
        accepted=bool(step.accepted),
        checked=checked,
        kept=kept,
        free=step.bonus + replaced,
        streamed=0 if proposals else to_write,
        proposals=proposals,
        proposed_out=to_write if proposals else 0,
    )


class _Proposer:
    """Splits what the target has to write into proposals: recorded ones first, then random ones."""

    def __init__(self, most: int, acceptance: float | None, random: Random) -> None:
        self._size = ProposalSize(most)
        self._acceptance = acceptance
        self._random = random

    def proposals(self, num_tokens: int, recorded: Proposals) -> Iterator[tuple[int, int]]:
        """Yields proposals for `num_tokens`; each gives the tokens kept of it and, if there is room, one more."""
        left, known = num_tokens, iter(recorded)
        while left > 0:
            proposed, kept = next(known, None) or self._drawn(left)
            # After other turns than the recorded ones the draft may propose fewer tokens.
            proposed = min(proposed, self._size.size)
            kept = min(kept, proposed, left)
            if kept == left:  # a proposal that completes the segment ends there
                proposed = kept
            if proposed:
                self._size.report(whole=kept == proposed)
            yield proposed, kept
            left -= min(kept + 1, left)

    def _drawn(self, left: int) -> tuple[int, int]:
        if self._acceptance is None:
            raise ConfigError(
                "the folder does not record how many proposed tokens were kept; give --token-acceptance, or "
                "leave out token-speculation"
            )
        proposed = min(self._size.size, left)
        kept = next((n for n in range(proposed) if self._random.random() >= self._acceptance), proposed)
        return proposed, kept
