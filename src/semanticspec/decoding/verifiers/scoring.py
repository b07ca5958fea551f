"""The common verifier: the target scores the draft in one pass, and a rule decides."""

from __future__ import annotations

from dataclasses import replace

from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers.base import Rule
from semanticspec.decoding.verifiers.token import TokenRule
from semanticspec.records import Sampling, Score, Stop, Verdict


class ScoringVerifier:
    """Lets the target score a draft in one pass; a rule decides on the score."""

    def __init__(
        self,
        request: RequestContext,
        rule: Rule,
        *,
        partial_acceptance: bool = False,
        next_token: Sampling | None = None,
    ) -> None:
        """Configures the pass.

        Args:
            partial_acceptance: of a rejected draft, keep the prefix that token-level speculation accepts.
            next_token: sampling settings of a token of the target that follows an accepted draft; None adds none.
        """
        self._request, self._rule = request, rule
        self._token_rule = TokenRule(request) if partial_acceptance else None
        self._next_token = next_token
        self._signals = getattr(rule, "needs_signals", True)
        self._needs_text = getattr(rule, "needs_text", False)
        self.needs_distributions = rule.needs_distributions or partial_acceptance
        self.lossy = rule.lossy or next_token not in (None, request.config.sampling)

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        if not draft.token_ids:
            return await self._replace_first(transcript, draft)
        if self._needs_text:
            draft = replace(draft, segment_text=transcript.segment_text(draft))
        sampling, next_token = self._request.config.sampling, self._next_token
        pass_sampling = next_token if next_token is not None and not self._rule.needs_distributions else None
        if pass_sampling is None and self.needs_distributions:
            pass_sampling = sampling
        # Distributions under the request's sampling and an added token under another one need two passes.
        distributions = self.needs_distributions and pass_sampling == sampling
        score = await self._score(transcript, draft, pass_sampling, distributions=distributions)
        verdict = self._rule.decide(draft, score)
        if verdict.accepted and next_token is not None:
            if pass_sampling != next_token:
                score = await self._score(transcript, draft, next_token, distributions=False)
            return replace(verdict, next_id=score.next_token_id)
        if verdict.accepted or self._token_rule is None:
            return verdict
        if score.distributions is None:
            score = await self._score(transcript, draft, sampling, distributions=True)
        prefix = self._token_rule.decide(draft, score)
        return replace(verdict, num_kept=prefix.num_kept, next_id=prefix.next_id)

    async def _replace_first(self, transcript: Transcript, draft: Draft) -> Verdict:
        """The draft begins with a token that the target does not have: a token of the residual replaces it."""
        (generation,) = await self._request.pair.target.engine.generate(
            transcript.target_ids,
            max_tokens=1,
            stop=Stop(),
            sampling=self._request.config.sampling,
            seed=self._request.target_seed,
            distributions=True,
            request_id=self._request.request_id,
        )
        score = Score((), generation.pooled_state, generation.distributions)
        verdict = TokenRule(self._request).decide(draft, score)
        return verdict if self._rule.needs_distributions else replace(verdict, next_author="target")

    async def _score(
        self, transcript: Transcript, draft: Draft, sampling: Sampling | None, *, distributions: bool
    ) -> Score:
        (score,) = await self._request.pair.target.engine.score(
            transcript.target_ids,
            [draft.token_ids],
            sampling=sampling,
            seed=self._request.target_seed,
            distributions=distributions,
            signals=self._signals,
            request_id=self._request.request_id,
        )
        return score
