"""Where should a proposal end? Expected output tokens per unit of cost, by where the draft stops proposing.

Runs the rule `token` with proposals that end only at their longest, and records the draft's probability of each token
and the target's probability of keeping it. From these records follows what any other end would have given. One cost
unit is a token that the target decodes by itself; costs are measured first (`--draft-cost` and `--verify-cost` replace
them).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path

from semanticspec import DecodingConfig, RuleConfig, load_pair
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.generate import decode, result_of
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers import make_verifier
from semanticspec.doctor.costs import measure_costs
from semanticspec.records import Verdict

LONGEST = 16
LIKELIHOODS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_COST_SECONDS = 30.0


def expected_tokens(acceptances: Sequence[float]) -> float:
    """Returns how many output tokens drafted tokens give under the rule `token`, with the target's own."""
    expected, kept = 1.0, 1.0
    for acceptance in acceptances:
        kept *= acceptance
        expected += kept
    return expected


def add_cost_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--draft-cost", type=float, help="of a drafted token, in target tokens")
    parser.add_argument("--verify-cost", type=float, help="of verifying one more token, in target tokens")


def draft_and_verify_cost(pair: Pair, options: argparse.Namespace) -> tuple[float, float]:
    """Returns the costs of drafting and of verifying one more token; those that are not given are measured."""
    draft_cost, verify_cost = options.draft_cost, options.verify_cost
    if draft_cost is None or verify_cost is None:
        costs = asyncio.run(measure_costs(pair, _COST_SECONDS))
        draft_cost = costs.draft_cost if draft_cost is None else draft_cost
        if verify_cost is None:
            verify_cost = (costs.verify_cost(8) - costs.verify_cost(1)) / 7
    return draft_cost, verify_cost


@dataclass(frozen=True)
class Proposal:
    """The draft's probability of each token (temperature 1), and the target's probability of keeping it."""

    likelihoods: Sequence[float]
    acceptances: Sequence[float]

    def expected_tokens(self, length: int) -> float:
        """Returns how many output tokens the first `length` proposed ones give: those kept, and the target's own."""
        return expected_tokens(self.acceptances[:length])

    def length_above(self, min_likelihood: float, longest: int) -> int:
        """Returns where a proposal ends whose likelihood may not fall below a bound."""
        product = 1.0
        for place, likelihood in enumerate(self.likelihoods[:longest], 1):
            product *= likelihood
            if product < min_likelihood:
                return place
        return min(longest, len(self.likelihoods))


class RecordingVerifier:
    """The rule `token`, which records what it verifies."""

    needs_distributions, lossy = True, False

    def __init__(self, request: RequestContext, proposals: list[Proposal]) -> None:
        self._request, self._proposals = request, proposals

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        pair, config = self._request.pair, self._request.config
        if draft.token_ids:
            (score,) = await pair.target.engine.score(
                transcript.target_ids, [draft.token_ids], sampling=config.sampling, distributions=True
            )
            drafted = draft.generation.distributions
            assert score.distributions is not None
            assert drafted is not None
            ratios = (
                score.distributions[place].of(token_id) / own.of(token_id)
                for place, (token_id, own) in enumerate(
                    zip(draft.token_ids, pair.to_target.distributions(drafted), strict=False)
                )
            )
            self._proposals.append(
                Proposal([exp(x) for x in draft.generation.logprobs], [min(1.0, float(x)) for x in ratios])
            )
        return await make_verifier(self._request).verify(transcript, draft)


async def record(pair: Pair, problems: Sequence[str]) -> list[Proposal]:
    """Answers problems; returns every proposal."""
    proposals: list[Proposal] = []
    for seed, problem in enumerate(problems):
        config = DecodingConfig(
            RuleConfig("token"),
            num_speculative_tokens=LONGEST,
            min_proposal_likelihood=0,
            max_new_tokens=300,
            seed=seed,
        )
        await result_of(
            decode(pair, problem, config, verifier=lambda request: RecordingVerifier(request, proposals))
        )
        print(f"{seed + 1} of {len(problems)} problems, {len(proposals)} proposals", flush=True)
    return proposals


def gain(
    proposals: Sequence[Proposal], length: Callable[[Proposal], int], draft_cost: float, verify_cost: float
) -> tuple[float, float]:
    """Returns output tokens per cost unit, and the mean length of a proposal."""
    lengths = [length(proposal) for proposal in proposals]
    tokens = sum(p.expected_tokens(n) for p, n in zip(proposals, lengths, strict=True))
    cost = sum(1 + n * (draft_cost + verify_cost) for n in lengths)
    return tokens / cost, sum(lengths) / len(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL file with a field `problem`")
    parser.add_argument("-n", type=int, default=8, help="number of problems")
    add_cost_options(parser)
    options = parser.parse_args()
    pair = load_pair(options.target, options.draft)
    lines = options.data.read_text(encoding="utf-8").splitlines()[: options.n]
    draft_cost, verify_cost = draft_and_verify_cost(pair, options)
    proposals = asyncio.run(record(pair, [json.loads(line)["problem"] for line in lines]))
    print(
        f"\ncost of a drafted token {draft_cost:.3f}, of verifying one more {verify_cost:.3f} target tokens"
    )
    print("| A proposal ends | at most 8 tokens | at most 12 tokens | at most 16 tokens |\n|---|---|---|---|")
    for bound in LIKELIHOODS:
        cells = []
        for longest in (8, 12, 16):
            found = gain(proposals, lambda p: p.length_above(bound, longest), draft_cost, verify_cost)  # noqa: B023
            cells.append(f"{found[0]:.2f} ({found[1]:.1f})")
        print(f"| {f'below {bound:g}' if bound else 'at its longest'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
