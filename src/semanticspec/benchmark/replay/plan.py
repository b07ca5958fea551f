"""From decisions to calls: what the two engines are asked for, given the optimizations that are on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random

from semanticspec.benchmark.replay.options import REPLAYED_OPTIMIZATIONS
from semanticspec.benchmark.replay.trace import Proposals, Step, Trace
from semanticspec.config import DecodingConfig, RuleConfig, target_alone, with_optimizations
from semanticspec.config import optimization_names as known_names
from semanticspec.decoding.adaptive import ProposalSize
from semanticspec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Turn:
    """The calls of one turn of the loop, in tokens of the target.

    Attributes:
        drafted: what the draft writes; 0 = nothing.
        judged: the target reads it.
        accepted: what was recorded as the verdict.
        checked: the target reads it once more, for the beginning that passes token by token.
        kept: how many drafted tokens stay.
        free: 1 if a token comes with the verification or the check.
        streamed: what the target then writes token by token.
        proposals: what it writes by token-level speculation instead: proposed and kept, check by check.
        proposed_out: tokens of the output that come from these.
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
    """What a plan asks for, or what was done.

    Attributes:
        num_tokens: of the output; draft_tokens: those of them that came from drafted segments.
        drafted_tokens: written by the draft for segments; proposed_tokens: written by it for checks.
        verify_passes: the target's readings of segments.
        checks: segments and proposals that the token rule looked at; the target has read the segments anyway.
        streamed_tokens: written by the target one by one.
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
        config: what the loop is configured as.
    """

    prompt_tokens: int
    turns: tuple[Turn, ...]
    config: DecodingConfig

    def counts(self) -> Counts:
        """What the calls add up to."""
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


def optimization_names(text: str) -> tuple[str, ...]:
    """The optimizations of `partial-acceptance+token-speculation`, in that order.

    Raises:
        ConfigError: one is unknown or named twice.
    """
    names = known_names(text.split("+"))
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
    proposer = _Proposer(config.num_speculative_tokens, acceptance, Random(f"{seed}:{trace.name}"))
    turns = tuple(_turn(step, config, proposer) for step in trace.steps)
    return Plan(trace.prompt_tokens, turns, config)


def _turn(step: Step, config: DecodingConfig, proposer: _Proposer) -> Turn:
    rejected = step.accepted is False
    checked = rejected and config.partial_acceptance
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
    """Cuts what the target has to write into proposals: the recorded ones first, others are drawn."""

    def __init__(self, most: int, acceptance: float | None, random: Random) -> None:
        self._size = ProposalSize(most)
        self._acceptance = acceptance
        self._random = random

    def proposals(self, num_tokens: int, recorded: Proposals) -> Iterator[tuple[int, int]]:
        """Proposals that lead to so many tokens: those kept of each and, as long as there is room, one more."""
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
                "the folder does not say how many proposed tokens the target kept; give --token-acceptance, or leave "
                "the optimization tokens out"
            )
        proposed = min(self._size.size, left)
        kept = next((n for n in range(proposed) if self._random.random() >= self._acceptance), proposed)
        return proposed, kept
