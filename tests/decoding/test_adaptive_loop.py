"""The option `adaptive` in the loop: what it may change is who writes, never whether the text is sound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semanticspec import generate
from semanticspec.config import target_alone
from semanticspec.decoding.adaptive import AdaptivePolicy, AlwaysSpeculate
from semanticspec.decoding.pair import _MAX_POLICIES
from semanticspec.records import GREEDY
from tests.support.scripted_pairs import config, make_pair, segment_texts


class Watched(AdaptivePolicy):
    """Decides by script and keeps what it is told."""

    def __init__(self, segments: bool, tokens: bool = False, limit: int | None = None) -> None:
        super().__init__()
        self.segments, self.tokens, self.limit = segments, tokens, limit
        self.told: list[tuple[str, int]] = []

    def segments_pay(self) -> bool:
        return self.segments

    def tokens_pay(self) -> bool:
        return self.tokens

    def segment_limit(self) -> int | None:
        return self.limit

    def report_decoded(self, num_tokens: int, seconds: float) -> None:
        assert seconds >= 0
        self.told.append(("written", num_tokens))

    def report_proposal(self, num_tokens: int, seconds: float) -> None:
        assert seconds >= 0
        self.told.append(("tokens", num_tokens))

    def report_segment(
        self, num_drafted: int, num_kept: int, draft_s: float, verify_s: float, *, first_pass: bool
    ) -> None:
        assert num_drafted >= num_kept
        assert draft_s > 0
        assert verify_s > 0
        self.told.append(("first" if first_pass else "segment", num_kept))


def run(policy: AdaptivePolicy, monkeypatch: pytest.MonkeyPatch, rule: str, **changes):
    pair = make_pair()
    monkeypatch.setattr(type(pair), "speculation_policy", lambda *_: policy)
    return generate(pair, "a", config(rule, adaptive=True, **changes))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("proposals", [0, 8])
def test_never_stays_the_target_alone_whatever_is_decided(seed: int, proposals: int) -> None:
    """By real clocks: which of the ways is taken changes from run to run."""
    decoding = config("never", seed=seed, sampling=GREEDY, num_speculative_tokens=proposals)
    pair = make_pair()
    alone = generate(pair, "a", target_alone(decoding))
    for _ in range(5):
        assert generate(pair, "a", replace(decoding, adaptive=True)).token_ids == alone.token_ids


def test_where_nothing_pays_the_target_writes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = generate(make_pair(), "a", target_alone(config()))
    policy = Watched(segments=False)
    result = run(policy, monkeypatch, "always", num_speculative_tokens=4)
    assert result.stats.drafted_tokens == 0
    assert result.token_ids == alone.token_ids
    assert segment_texts(result.segments) == result.text
    kinds = {kind for kind, _ in policy.told}
    assert kinds == {"written"}
    # The first piece is not told: the target read the prompt in the same pass.
    assert 0 < sum(count for _, count in policy.told) < len(result.token_ids)


class WaitsFor(Watched):
    """Speculates once the target has written so many tokens."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__(segments=False)
        self.num_tokens = num_tokens

    def segments_pay(self) -> bool:
        return sum(count for _, count in self.told) >= self.num_tokens


@pytest.mark.parametrize("num_tokens", [1, 6, 100])
def test_while_nothing_pays_one_call_writes_segment_after_segment(
    monkeypatch: pytest.MonkeyPatch, num_tokens: int
) -> None:
    pair = make_pair()
    monkeypatch.setattr(type(pair), "speculation_policy", lambda *_: WaitsFor(num_tokens))
    result = generate(pair, "a", config("always", adaptive=True))
    alone = generate(make_pair(), "a", target_alone(config()))
    first_drafted = next((n for n, s in enumerate(result.segments) if s.author == "draft"), None)
    written = result.segments[:first_drafted]
    assert len(written) > 1 or num_tokens == 1
    assert alone.text.startswith(segment_texts(written))
    assert all(segment.text.endswith(("\n\n", "</think>")) for segment in written[:-1])
    if num_tokens == 100:
        assert first_drafted is None
        assert pair.target.engine.calls.count("stream") <= 2  # reasoning, and the answer
    else:
        assert pair.target.engine.calls.count("stream") == 1 + sum(
            segment.author == "target" for segment in result.segments[len(written) :]
        )
        assert written[-1].text.endswith("\n\n")


def test_what_is_told_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Watched(segments=True, tokens=True)
    result = run(policy, monkeypatch, "semantic", num_speculative_tokens=4)
    assert sum(count for _, count in policy.told) == len(result.token_ids)
    assert [kind for kind, _ in policy.told].count("first") == 1
    assert policy.told[0][0] == "first"


def test_a_trial_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(Watched(segments=True, limit=2), monkeypatch, "always")
    drafted = [segment.num_tokens for segment in result.segments if segment.author == "draft"]
    assert max(drafted) == 2


def test_what_is_learned_is_kept_across_requests_of_a_configuration() -> None:
    pair = make_pair()
    adaptive = config(adaptive=True)
    assert pair.speculation_policy(replace(adaptive, seed=5)) is pair.speculation_policy(adaptive)
    # A server limits each output by the length of its prompt.
    assert pair.speculation_policy(replace(adaptive, max_new_tokens=7)) is pair.speculation_policy(adaptive)
    assert pair.speculation_policy(replace(adaptive, partial_acceptance=True)) is not pair.speculation_policy(
        adaptive
    )
    assert isinstance(pair.speculation_policy(config()), AlwaysSpeculate)
    for limit in range(1, _MAX_POLICIES + 5):
        pair.speculation_policy(replace(adaptive, max_segment_tokens=limit))
    assert len(pair._policies) == _MAX_POLICIES
