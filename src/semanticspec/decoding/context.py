"""What the parts of one request (drafter, verifier, writer) share."""

from __future__ import annotations

from random import Random

from semanticspec.config import DecodingConfig
from semanticspec.decoding.clock import Clock
from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import derived_seed


class RequestContext:
    """The pair, the configuration and the state that drafter, verifier and writer of one request share.

    Attributes:
        request_id: a caching hint for the engines.
        random: every random decision of the request that is not the sampling of a token.
        target_seed: seed of the tokens that the target samples.
        policy: whether speculation pays, see `adaptive`.
        clock: seconds by phase.
    """

    def __init__(self, pair: Pair, config: DecodingConfig, request_id: str | None = None) -> None:
        self.pair, self.config = pair, config
        self.request_id = request_id or f"request-{id(self):x}"
        self.random = Random(derived_seed(config.seed, "accept"))
        self.target_seed = derived_seed(config.seed, "target")
        self.policy = pair.speculation_policy(config)
        self.clock = Clock()
        self._target_has_prefilled = False

    def report_segment(self, num_drafted: int, num_kept: int) -> None:
        """Reports the costs of a drafted and verified segment to the speculation policy."""
        self.policy.report_segment(
            num_drafted,
            num_kept,
            draft_s=self.clock.lap("draft"),
            verify_s=self.clock.lap("verify", "probe"),
            first_pass=not self._target_has_prefilled,
        )
        self._target_has_prefilled = True

    def report_written(self, num_tokens: int, *, proposed: bool) -> None:
        """Reports the costs of tokens that the target wrote, by itself or by verifying a proposal."""
        seconds = self.clock.lap("rewrite")
        if self._target_has_prefilled:  # the first call also prefilled the prompt
            report = self.policy.report_proposal if proposed else self.policy.report_decoded
            report(num_tokens, seconds)
        self._target_has_prefilled = True
