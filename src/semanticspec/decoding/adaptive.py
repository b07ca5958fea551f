"""Adaptive speculation: whether speculating pays, and how many tokens to propose at a time.

Costs are counted in target tokens: the time in which the target decodes one token by itself. An allowance that grows
with the output bounds what speculation may waste, so that a pair that does not fit loses little, whatever its models.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

from semanticspec.decoding.load import Load

# Target tokens that may be wasted per output token. Half of what a pair without any accepted draft may lose; the rest
# covers what a trial overdraws and what is not counted.
_ALLOWANCE = 0.025
# Savings beyond this are not carried over, so that a pair that turns bad is noticed soon.
_MAX_BALANCE = 16.0
# Number of attempts an estimate looks back on.
_MEMORY = 6
# Prior of an estimate: so many attempts that each saved so many target tokens. The first attempt also pays for the
# draft's prefill of the prompt, which says little about later ones.
_PRIOR_ATTEMPTS = 2.0
_PRIOR_SEGMENT_SAVING = 2.0
_PRIOR_PROPOSAL_SAVING = 0.25
# A trial drafts what costs about this many target tokens, within these bounds in drafted tokens. If it is too short to
# reach the end of a segment, the next one is up to twice as long, at no more than this multiple of the cost.
_TRIAL_COST = 4.0
_TRIAL_TOKENS = (8, 64)
_LONGEST_TRIAL = 2.0
_FIRST_PROPOSAL_TOKENS = 4
# Cost of verifying one more token of a proposal, in target tokens, and bounds of what follows from estimates.
_VERIFY_COST = 0.05
_CHEAPEST_TOKEN = 0.2
_LIKELIHOODS = 0.1, 0.9
# A draft that needs this share of the target's time for a token cannot pay; one measurement may still be wrong.
_SLOW_DRAFT = 0.8


class SpeculationPolicy:
    """Decides when to speculate. This one always does; subclasses learn from what they are told."""

    def request(self) -> AbstractContextManager[None]:
        """Counts a request while it runs."""
        return nullcontext()

    def segments_pay(self) -> bool:
        """Whether to draft the next segment, instead of letting the target write it."""
        return True

    def tokens_pay(self) -> bool:
        """Whether the target should verify proposals where it writes, instead of decoding by itself."""
        return True

    def segment_limit(self) -> int | None:
        """The longest next drafted segment in tokens; None = no limit."""
        return None

    def min_likelihood(self, default: float) -> float:
        """Where to end a proposal, see `DecodingConfig.min_proposal_likelihood`."""
        return default

    def report_decoded(self, num_tokens: int, seconds: float) -> None:
        """Reports tokens that the target decoded by itself."""

    def report_segment(
        self, num_drafted: int, num_kept: int, draft_s: float, verify_s: float, *, first_pass: bool
    ) -> None:
        """Reports a drafted and verified segment.

        Args:
            first_pass: the target prefilled its prompt in the same pass, as it would have had to in any case.
        """

    def report_proposal(self, num_tokens: int, seconds: float) -> None:
        """Reports tokens that the target wrote in one round of verifying a proposal."""


class AlwaysSpeculate(SpeculationPolicy):
    """Always speculates: the plain loop."""


class NeverSpeculate(SpeculationPolicy):
    """The target writes alone."""

    def segments_pay(self) -> bool:
        return False

    def tokens_pay(self) -> bool:
        return False


class AdaptivePolicy(SpeculationPolicy):
    """Learns the costs and savings of one pair under one configuration.

    Args:
        load: of the pair, shared by its policies: with other requests running, their joint throughput decides too.
    """

    def __init__(self, load: Load | None = None) -> None:
        self._load = load or Load()
        self._decoded = _RecentMean()  # seconds per token that the target decodes by itself
        self._shortest_pass_s = math.inf  # of the target over a drafted segment
        self._drafted = _RecentMean()  # seconds per drafted token
        self._verified = _RecentMean()  # seconds per pass
        self._segments, self._tokens = _Savings(_PRIOR_SEGMENT_SAVING), _Savings(_PRIOR_PROPOSAL_SAVING)
        self._balance = 0.0
        self._trial_tokens = _TRIAL_TOKENS[0]

    def request(self) -> AbstractContextManager[None]:
        return self._load.request()

    def segments_pay(self) -> bool:
        if not self._load.speculates():
            return False
        # A token kept from a segment could also have been written by token-level speculation.
        alternative = max(0.0, self._tokens.saving_per_token) * self._segments.given.mean
        if self._draft_cost() > _SLOW_DRAFT:
            return self._balance >= _MAX_BALANCE
        return self._segments.saving > alternative or self._balance >= 0

    def tokens_pay(self) -> bool:
        nothing_to_compare_with = self._decoded.weight == 0
        if nothing_to_compare_with or not self._load.speculates():
            return False
        if self._draft_cost() > _SLOW_DRAFT:
            return self._balance >= _MAX_BALANCE
        return self._tokens.saving > 0 or self._balance >= 0

    def segment_limit(self) -> int | None:
        return None if self._segments.has_paid else self._trial_tokens

    def min_likelihood(self, default: float) -> float:
        """One more token is worth its cost if it is kept with a probability above cost times tokens per cost."""
        if not default or not self._draft_cost() or not self._tokens.given.weight:
            return default
        cost_per_token = max(_CHEAPEST_TOKEN, 1 - self._tokens.saving_per_token)
        low, high = _LIKELIHOODS
        return min(max(low, (self._draft_cost() + _VERIFY_COST) / cost_per_token), high)

    def report_decoded(self, num_tokens: int, seconds: float) -> None:
        self._load.report(num_tokens)
        self._decoded.add(seconds, num_tokens, forgets=min(1.0, num_tokens / 256))
        self._grow(num_tokens)

    def report_segment(
        self, num_drafted: int, num_kept: int, draft_s: float, verify_s: float, *, first_pass: bool
    ) -> None:
        self._load.report(num_kept)
        if first_pass:
            verify_s = self._verified.mean
        else:
            self._verified.add(verify_s)
            self._shortest_pass_s = min(self._shortest_pass_s, verify_s)
        self._drafted.add(draft_s, num_drafted)
        token_s = self._target_token_s()
        if not token_s:
            return
        self._report(self._segments, num_kept, (draft_s + verify_s) / token_s)
        if num_kept == 0:
            fits = _TRIAL_COST / max(self._draft_cost(), _TRIAL_COST / _TRIAL_TOKENS[1])
            longer = min(2 * num_drafted, _LONGEST_TRIAL * fits) if num_drafted == self._trial_tokens else 0
            self._trial_tokens = int(max(_TRIAL_TOKENS[0], fits, longer))

    def report_proposal(self, num_tokens: int, seconds: float) -> None:
        self._load.report(num_tokens)
        if token_s := self._target_token_s():
            self._report(self._tokens, num_tokens, seconds / token_s)

    def _report(self, savings: _Savings, given: int, cost: float) -> None:
        """An attempt gave so many output tokens at a cost in target tokens."""
        savings.add(given - cost, given)
        self._grow(given)
        self._balance = min(self._balance + given - cost, _MAX_BALANCE)

    def _grow(self, num_tokens: int) -> None:
        self._balance = min(self._balance + _ALLOWANCE * num_tokens, _MAX_BALANCE)

    def _draft_cost(self) -> float:
        """Cost of a drafted token in target tokens; 0 = unknown."""
        token_s = self._target_token_s()
        return self._drafted.mean / token_s if token_s else 0.0

    def _target_token_s(self) -> float:
        """Seconds per token of the target; before it has decoded, those of its shortest pass; 0 = unknown."""
        if self._decoded.weight:
            return self._decoded.mean
        return self._shortest_pass_s if self._shortest_pass_s < math.inf else 0.0


class _RecentMean:
    """A weighted mean in which every entry counts less with each one that follows."""

    def __init__(self) -> None:
        self.weight = self.amount = 0.0

    def add(self, amount: float, weight: float = 1.0, forgets: float = 1.0 / _MEMORY) -> None:
        self.amount = self.amount * (1 - forgets) + amount
        self.weight = self.weight * (1 - forgets) + weight

    @property
    def mean(self) -> float:
        return self.amount / self.weight if self.weight else 0.0


class _Savings:
    """What one kind of speculation saved per attempt, and how many output tokens its attempts gave."""

    def __init__(self, prior: float) -> None:
        self._prior = prior
        self._saved = _RecentMean()
        self.given = _RecentMean()

    def add(self, saved: float, given: float) -> None:
        self._saved.add(saved)
        self.given.add(given)

    @property
    def saving(self) -> float:
        """Target tokens saved per attempt: what was measured, together with the prior."""
        weight = self._saved.weight + _PRIOR_ATTEMPTS
        return (self._saved.amount + _PRIOR_ATTEMPTS * self._prior) / weight

    @property
    def saving_per_token(self) -> float:
        """Target tokens saved per output token."""
        return self._saved.amount / self.given.amount if self.given.amount else 0.0

    @property
    def has_paid(self) -> bool:
        """Whether what was measured, without the prior, is a saving."""
        return self._saved.amount > 0


class ProposalSize:
    """How many tokens the draft proposes at a time.

    Two more after a proposal that was kept whole, one less after any other. Source: the schedule "heuristic" of
    transformers' assisted generation.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = min(_FIRST_PROPOSAL_TOKENS, limit)

    def report(self, *, whole: bool) -> None:
        """Reports whether the last proposal was kept whole."""
        self.size = max(1, min(self.size + 2 if whole else self.size - 1, self._limit))
