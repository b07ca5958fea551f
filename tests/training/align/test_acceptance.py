"""Acceptance of token-level speculation over given answers."""

from __future__ import annotations

import numpy as np
import pytest

from semanticspec.distributions import Distribution
from semanticspec.training.align.acceptance import acceptance_of, kept_runs, token_acceptances


def test_a_kept_run_ends_at_the_first_token_that_is_not_kept():
    assert kept_runs(np.array([1.0, 1.0, 0.0, 1.0]), length=8) == pytest.approx([2, 1, 0, 1])
    assert kept_runs(np.array([0.5, 0.5, 0.5]), length=2) == pytest.approx([0.75, 0.75, 0.5])


def test_a_token_is_accepted_as_often_as_the_distributions_overlap():
    target = [Distribution.of_dense([0.5, 0.5, 0.0]), Distribution.of_dense([0.0, 0.0, 1.0])]
    draft = [Distribution.of_dense([0.2, 0.0, 0.8]), Distribution.of_dense([0.1, 0.0, 0.9])]
    assert token_acceptances(target, draft) == pytest.approx([0.2, 0.9])


def test_answers_count_by_their_tokens():
    found = acceptance_of([np.ones(3), np.zeros(1)])
    assert (found.probability, found.num_tokens, found.by_answer) == (0.75, 4, (1.0, 0.0))
