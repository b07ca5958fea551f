"""Does it pay to give up a drafted segment early? Output tokens per unit of cost, by when a draft is given up.

Answers problems under the rule `semantic` and records of every drafted segment: the draft's log-probabilities, the
entropy of its first token, the probability that the rule keeps it, and the target's probability of keeping each token.
From these records follows what a segment would have given that is cut where a signal says that it will be rejected.
One cost unit is a token that the target decodes by itself; costs are measured first (options replace them).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path

from proposal_ends import add_cost_options, draft_and_verify_cost, expected_tokens

from semanticspec import DecodingConfig, RuleConfig, load_pair
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.generate import decode, result_of
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers import make_verifier
from semanticspec.decoding.verifiers.semantic import acceptance_probability
from semanticspec.records import Verdict

LIKELIHOODS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.003, 0.001)
MEANS = (0.5, 0.6, 0.7, 0.8)
ENTROPIES = (0.1, 0.3, 0.6, 1.0)
PASS_AFTER = (8, 16, 24)


@dataclass(frozen=True)
class Segment:
    """One drafted segment.

    Attributes:
        logprobs: of the draft, at temperature 1.
        entropy: of the draft's first token, under the sampling settings (nats).
        kept: probability that the rule keeps the segment.
        acceptances: the target's probability of keeping each token under the rule `token`.
    """

    logprobs: Sequence[float]
    entropy: float
    kept: float
    acceptances: Sequence[float]

    def __len__(self) -> int:
        return len(self.acceptances)

    def prefix_tokens(self, length: int) -> float:
        """Returns the output tokens of the first `length` tokens under the rule `token`, with the target's own."""
        return expected_tokens(self.acceptances[:length])


class RecordingVerifier:
    """The request's own verifier, which records what it verifies."""

    needs_distributions = True

    def __init__(self, request: RequestContext, segments: list[Segment]) -> None:
        self._request, self._segments = request, segments
        self._verifier = make_verifier(request)
        self.lossy = self._verifier.lossy

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        verdict = await self._verifier.verify(transcript, draft)
        drafted, config = draft.generation.distributions, self._request.config
        if not draft.token_ids or drafted is None:
            return verdict
        (score,) = await self._request.pair.target.engine.score(
            transcript.target_ids, [draft.token_ids], sampling=config.sampling, distributions=True
        )
        assert score.distributions is not None
        own = self._request.pair.to_target.distributions(drafted)
        ratios = [
            float(score.distributions[i].of(token_id) / own[i].of(token_id))
            for i, token_id in enumerate(draft.token_ids)
        ]
        kept = 1.0
        if verdict.p_target is not None and verdict.p_draft is not None:
            kept = acceptance_probability(config.rule, verdict.p_target, verdict.p_draft)
        first = own[0].probabilities
        entropy = -sum(float(p) * log(float(p)) for p in first if p > 0)
        logprobs = draft.generation.logprobs[: len(ratios)]
        self._segments.append(Segment(logprobs, entropy, kept, [min(1.0, ratio) for ratio in ratios]))
        return verdict


async def record(pair: Pair, problems: Sequence[str], options: argparse.Namespace) -> None:
    """Answers problems that the file of records does not have yet, and appends their segments to it."""
    done = len(options.out.read_text().splitlines()) if options.out.exists() else 0
    for seed, problem in list(enumerate(problems))[done:]:
        segments: list[Segment] = []
        config = DecodingConfig(RuleConfig("semantic"), max_new_tokens=300, seed=seed)
        await result_of(
            decode(pair, problem, config, verifier=lambda request: RecordingVerifier(request, segments))  # noqa: B023
        )
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps([asdict(segment) for segment in segments]) + "\n")
        print(f"{seed + 1} of {len(problems)} problems, {len(segments)} segments", flush=True)


@dataclass(frozen=True)
class Costs:
    """In target tokens: of a drafted token, of verifying one more token, and of a token that the target writes."""

    draft: float
    verify: float
    written: float

    def whole(self, segment: Segment) -> tuple[float, float]:
        """Returns output tokens and cost of a segment that is verified as a whole, up to where the segment ends."""
        given = segment.kept * len(segment) + (1 - segment.kept) * segment.prefix_tokens(len(segment))
        return given, 1 + len(segment) * (self.draft + self.verify)

    def cut(self, segment: Segment, length: int) -> tuple[float, float]:
        """The same of its first tokens, verified token by token."""
        if length == 0:
            return 0.0, 0.0
        return segment.prefix_tokens(length), 1 + length * (self.draft + self.verify)

    def gain(self, given: float, cost: float) -> float:
        """Returns the target tokens saved, compared with the target's own (token-level) writing."""
        return given * self.written - cost


Policy = Callable[[Segment], int | None]
"""Returns how many tokens are drafted of a segment that is given up; None = it is drafted whole."""


def below(min_likelihood: float) -> Policy:
    """Ends after the token at which the product of the draft's probabilities falls below a bound."""

    def length(segment: Segment) -> int | None:
        total = 0.0
        for i, logprob in enumerate(segment.logprobs[:-1], 1):
            total += logprob
            if total < log(min_likelihood):
                return i
        return None

    return length


def mean_below(likelihood: float, after: int = 6) -> Policy:
    """Ends where the draft's mean probability (geometric) of at least `after` tokens falls below a bound."""

    def length(segment: Segment) -> int | None:
        total = 0.0
        for i, logprob in enumerate(segment.logprobs[:-1], 1):
            total += logprob
            if i >= after and total / i < log(likelihood):
                return i
        return None

    return length


def first_entropy_above(entropy: float) -> Policy:
    """Leaves a segment to the target if the draft is unsure about its first token. Costs one drafted token."""
    return lambda segment: 0 if segment.entropy > entropy else None


def total_gain(segments: Sequence[Segment], policy: Policy, costs: Costs) -> tuple[float, float, float]:
    """Returns target tokens saved a segment, the share given up, and the share kept by the rule of those given up."""
    gained, given_up, would_keep = 0.0, 0, 0.0
    for segment in segments:
        length = policy(segment)
        if length is None:
            gained += costs.gain(*costs.whole(segment))
            continue
        given_up, would_keep = given_up + 1, would_keep + segment.kept
        gained += costs.gain(*costs.cut(segment, length)) - (costs.draft if length == 0 else 0)
    return gained / len(segments), given_up / len(segments), would_keep / max(1, given_up)


def gain_with_passes(
    segments: Sequence[Segment], after: int, bound: float, costs: Costs
) -> tuple[float, float, float]:
    """The same with a pass of the target over the first `after` tokens of longer segments.

    The segment is drafted further only if the target keeps these tokens with at least the probability `bound`.
    """
    gained, given_up, would_keep = 0.0, 0, 0.0
    for segment in segments:
        if len(segment) <= after:
            gained += costs.gain(*costs.whole(segment))
            continue
        product = exp(sum(log(max(acceptance, 1e-12)) for acceptance in segment.acceptances[:after]))
        if product < bound:
            given_up, would_keep = given_up + 1, would_keep + segment.kept
            gained += costs.gain(*costs.cut(segment, after))
        else:
            gained += costs.gain(*costs.whole(segment)) - 1
    return gained / len(segments), given_up / len(segments), would_keep / max(1, given_up)


def report(segments: Sequence[Segment], costs: Costs) -> None:
    """Prints a table of policies."""
    num_tokens = sum(map(len, segments))
    kept = sum(segment.kept for segment in segments)
    print(
        f"\n{len(segments)} segments of {num_tokens / len(segments):.1f} tokens, {kept / len(segments):.0%} kept; "
        f"costs in target tokens: drafting {costs.draft:.3f}, verifying one more {costs.verify:.3f}, "
        f"a token that the target writes {costs.written:.2f}"
    )
    print(
        "| A segment is given up | Saved a segment (target tokens) | Given up | The rule would keep of these |"
    )
    print("|---|---|---|---|")
    rows = [("never", total_gain(segments, lambda _: None, costs))]
    for bound in LIKELIHOODS:
        name = f"product of the draft's probabilities below {bound:g}"
        rows.append((name, total_gain(segments, below(bound), costs)))
    for bound in MEANS:
        rows.append((f"their mean below {bound:g}", total_gain(segments, mean_below(bound), costs)))
    for bound in ENTROPIES:
        found = total_gain(segments, first_entropy_above(bound), costs)
        rows.append((f"entropy of the first token above {bound:g}", found))
    for after in PASS_AFTER:
        for bound in (0.01, 0.1):
            found = gain_with_passes(segments, after, bound, costs)
            rows.append((f"a pass after {after} tokens keeps them with less than {bound:g}", found))
    for name, (gained, given_up, would_keep) in rows:
        print(f"| {name} | {gained:.2f} | {given_up:.0%} | {would_keep:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--target-probe", required=True)
    parser.add_argument("--draft-probe", required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL file with a field `problem`")
    parser.add_argument("--out", type=Path, required=True, help="file of records; continued if it exists")
    parser.add_argument("-n", type=int, default=16, help="number of problems")
    add_cost_options(parser)
    parser.add_argument(
        "--written-cost", type=float, default=0.45, help="of a token that the target writes with proposals"
    )
    options = parser.parse_args()
    pair = load_pair(
        options.target, options.draft, target_probe=options.target_probe, draft_probe=options.draft_probe
    )
    lines = options.data.read_text(encoding="utf-8").splitlines()[: options.n]
    asyncio.run(record(pair, [json.loads(line)["problem"] for line in lines], options))
    draft_cost, verify_cost = draft_and_verify_cost(pair, options)
    records = [Segment(**each) for line in options.out.read_text().splitlines() for each in json.loads(line)]
    report(records, Costs(draft_cost, verify_cost, options.written_cost))


if __name__ == "__main__":
    main()
