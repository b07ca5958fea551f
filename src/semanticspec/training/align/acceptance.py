"""How much of a target's answers token-level speculation with a draft would keep.

Source: Leviathan et al. 2023: a token is accepted with the probability sum(min(p_target, p_draft)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semanticspec.distributions import Distribution, Distributions
from semanticspec.engines.base import Engine
from semanticspec.records import Sampling
from semanticspec.training.align.examples import Example

PROPOSAL_TOKENS = 8
"""Length of the proposals that a kept run is counted for."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Acceptance over answers.

    Attributes:
        probability: that a proposed token is kept, mean over all positions.
        kept_run: tokens kept of a proposal of `PROPOSAL_TOKENS` tokens, mean over all positions.
        num_tokens: positions.
        by_answer: the mean probability of each answer.
    """

    probability: float
    kept_run: float
    num_tokens: int
    by_answer: tuple[float, ...] = field(repr=False)


def acceptance_of(rows: Sequence[NDArray[np.float64]]) -> Acceptance:
    """Summarizes acceptance probabilities, an array `[tokens]` per answer."""
    whole = np.concatenate(rows)
    runs = np.concatenate([kept_runs(row) for row in rows])
    return Acceptance(
        float(whole.mean()), float(runs.mean()), len(whole), tuple(float(row.mean()) for row in rows)
    )


def kept_runs(probabilities: NDArray[np.float64], length: int = PROPOSAL_TOKENS) -> NDArray[np.float64]:
    """Returns, for proposals that begin at each position, the expected number of kept tokens.

    Proposals at the end are shorter: they end with the answer.
    """
    padded = np.concatenate([probabilities, np.zeros(length)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)[: len(probabilities)]
    return np.asarray(windows.cumprod(axis=1).sum(axis=1))


def token_acceptances(target: Distributions, draft: Distributions) -> NDArray[np.float64]:
    """Returns the probability that the target keeps what the draft proposes, at each position `[tokens]`."""
    return np.array([_overlap(p, q) for p, q in zip(target, draft, strict=True)])


def _overlap(target: Distribution, draft: Distribution) -> float:
    return float(np.minimum(target.probabilities, draft.of(target.token_ids)).sum())


async def measure_acceptance(
    draft: Engine,
    examples: Sequence[Example],
    sampling: Sampling,
    on_progress: Callable[[], None] = lambda: None,
) -> Acceptance:
    """Measures a draft on answers of the target. Each takes one pass of the draft.

    Args:
        draft: an engine that returns distributions.
        examples: with the target's distributions.
        sampling: the settings under which the answers were drawn.

    Raises:
        EngineError: the engine failed, or returns no distributions.
    """
    rows = []
    for example in examples:
        (score,) = await draft.score(
            example.prompt_ids, [example.answer_ids], sampling=sampling, distributions=True
        )
        assert score.distributions is not None
        rows.append(token_acceptances(example.distributions, score.distributions[: len(example.answer_ids)]))
        on_progress()
    return acceptance_of(rows)
