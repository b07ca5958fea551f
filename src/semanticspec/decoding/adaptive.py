"""Whether speculating pays: what it costs and brings, learned as a pair works, kept across its requests. And how many
tokens to propose at a time.

All is counted in target tokens: the time the target would have taken to write a token by itself. What speculation
wastes is bounded by an allowance that grows with the output, so that a pair that does not fit loses next to nothing,
whatever its models.
"""

from __future__ import annotations

import math

# Wasted target tokens that every output token allows: half of what a hopeless pair may lose, the rest is for what
# a trial overdraws and for what is not counted.
_ALLOWANCE = 0.025
# Savings beyond this are not kept for later: a pair that turns bad is noticed soon.
_MOST_SAVED = 16.0
# How many attempts an estimate looks back on.
_MEMORY = 6
# Before anything is known, as if so many attempts had each saved so many target tokens: the first attempt also pays
# for the draft's reading of the prompt, which says little of the attempts to come.
_PRIOR_ATTEMPTS = 2.0
_SEGMENT_PRIOR = 2.0
_TOKENS_PRIOR = 0.25
# A trial drafts what costs about this many target tokens, but neither fewer nor more tokens than the next two numbers.
# One too short to reach a segment's end is followed by one twice as long, at so many times the cost at most.
_TRIAL_COST = 4.0
_TRIAL_TOKENS = (8, 64)
_LONGEST_TRIAL = 2.0
# Tokens of a request's first proposal.
_FIRST_PROPOSAL = 4
# A draft that takes this share of the target's time for a token cannot pay; measured once, it may still be wrong.
_SLOW_DRAFT = 0.8


class _Recent:
    """A sum that forgets: every entry counts less with each one that follows."""

    def __init__(self) -> None:
        self.weight = self.amount = 0.0

    def add(self, amount: float, weight: float = 1.0, forgets: float = 1.0 / _MEMORY) -> None:
        self.amount = self.amount * (1 - forgets) + amount
        self.weight = self.weight * (1 - forgets) + weight

    @property
    def mean(self) -> float:
        return self.amount / self.weight if self.weight else 0.0


class _Way:
    """What one way of speculating has saved per attempt, and how much text its attempts gave."""

    def __init__(self, hoped: float) -> None:
        self._hoped = hoped
        self._saved = _Recent()
        self.given = _Recent()

    def note(self, saved: float, given: float) -> None:
        self._saved.add(saved)
        self.given.add(given)

    @property
    def saving(self) -> float:
        """Target tokens saved per attempt, between what was seen and what is hoped before."""
        weight = self._saved.weight + _PRIOR_ATTEMPTS
        return (self._saved.amount + _PRIOR_ATTEMPTS * self._hoped) / weight

    @property
    def saving_per_token(self) -> float:
        """Target tokens saved per token of the output."""
        return self._saved.amount / self.given.amount if self.given.amount else 0.0

    @property
    def has_paid(self) -> bool:
        """Whether what was seen, without what is hoped, is a saving."""
        return self._saved.amount > 0


class Pacing:
    """The running estimate of one pair under one configuration: numbers in, decisions out; it measures nothing."""

    def __init__(self) -> None:
        self._pace = _Recent()  # seconds per token the target writes
        self._pass = math.inf  # seconds of the shortest pass of the target over a drafted segment
        self._draft = _Recent()  # seconds per drafted token
        self._verify = _Recent()  # seconds per pass
        self._segments, self._tokens = _Way(_SEGMENT_PRIOR), _Way(_TOKENS_PRIOR)
        self._balance = 0.0
        self._trial_tokens = _TRIAL_TOKENS[0]

    def segments_pay(self) -> bool:
        """Whether to draft the next segment, rather than have the target write it."""
        # What is drafted in vain, the target writes all the same; what is kept, it could have written by tokens.
        instead = max(0.0, self._tokens.saving_per_token) * self._segments.given.mean
        if self._draft_cost() > _SLOW_DRAFT:
            return self._balance >= _MOST_SAVED
        return self._segments.saving > instead or self._balance >= 0

    def tokens_pay(self) -> bool:
        """Whether the target should check proposals of the draft where it writes, rather than write by itself."""
        if self._pace.weight == 0:
            return False  # against a pass as the measure, nothing looks slow
        if self._draft_cost() > _SLOW_DRAFT:
            return self._balance >= _MOST_SAVED
        return self._tokens.saving > 0 or self._balance >= 0

    def segment_limit(self) -> int | None:
        """How many tokens the next drafted segment may have at most: few in a trial; None = no limit."""
        return None if self._segments.has_paid else self._trial_tokens

    def note_written(self, num_tokens: int, seconds: float) -> None:
        """The target wrote by itself."""
        self._pace.add(seconds, num_tokens, forgets=min(1.0, num_tokens / 256))
        self._grow(num_tokens)

    def note_segment(
        self, num_drafted: int, num_kept: int, draft_s: float, verify_s: float, *, first_pass: bool
    ) -> None:
        """A segment was drafted and judged.

        Args:
            first_pass: the target read its prompt in the same pass, as it would have had to in any case.
        """
        if first_pass:
            verify_s = self._verify.mean
        else:
            self._verify.add(verify_s)
            self._pass = min(self._pass, verify_s)
        self._draft.add(draft_s, num_drafted)
        pace = self._seconds_per_token()
        if not pace:
            return
        self._note(self._segments, num_kept, (draft_s + verify_s) / pace)
        if num_kept == 0:
            fits = _TRIAL_COST / max(self._draft_cost(), _TRIAL_COST / _TRIAL_TOKENS[1])
            longer = min(2 * num_drafted, _LONGEST_TRIAL * fits) if num_drafted == self._trial_tokens else 0
            self._trial_tokens = int(max(_TRIAL_TOKENS[0], fits, longer))

    def note_tokens(self, num_tokens: int, seconds: float) -> None:
        """The target wrote so many tokens in one round of checking a proposal."""
        if pace := self._seconds_per_token():
            self._note(self._tokens, num_tokens, seconds / pace)

    def _note(self, way: _Way, given: int, spent: float) -> None:
        """An attempt gave so many tokens of output and took as long as the target takes for `spent` of them."""
        way.note(given - spent, given)
        self._grow(given)
        self._balance = min(self._balance + given - spent, _MOST_SAVED)

    def _grow(self, num_tokens: int) -> None:
        self._balance = min(self._balance + _ALLOWANCE * num_tokens, _MOST_SAVED)

    def _draft_cost(self) -> float:
        """Of a drafted token in target tokens; 0 = unknown."""
        pace = self._seconds_per_token()
        return self._draft.mean / pace if pace else 0.0

    def _seconds_per_token(self) -> float:
        """The target's pace; before it has written, that of a pass, which takes a little longer; 0 = unknown."""
        if self._pace.weight:
            return self._pace.mean
        return self._pass if self._pass < math.inf else 0.0


class AlwaysSpeculate(Pacing):
    """Always speculates, whatever it is told: the plain loop."""

    def segments_pay(self) -> bool:
        return True

    def tokens_pay(self) -> bool:
        return True

    def segment_limit(self) -> int | None:
        return None


class ProposalSize:
    """How many tokens the draft proposes at a time.

    It follows what was kept: two more after a proposal that was kept whole, one less after any other. Source: the
    schedule "heuristic" of transformers' assisted generation.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = min(_FIRST_PROPOSAL, most)

    def note(self, *, whole: bool) -> None:
        """Takes notice of a proposal that was kept whole, or was not."""
        self.size = max(1, min(self.size + 2 if whole else self.size - 1, self._most))
