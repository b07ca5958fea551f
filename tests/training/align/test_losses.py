"""Losses of an alignment against the same computed from whole distributions."""

from __future__ import annotations

import pytest
import torch

from semanticspec.training.align.losses import position_losses

VOCABULARY = 11


@pytest.fixture
def sparse() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, tokens, and target distributions as entries and as whole rows."""
    torch.manual_seed(0)
    ids = torch.tensor([[0, 3, 9], [2, 5, 0], [7, 0, 0]])
    nucleus = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]])
    dense = torch.zeros(3, VOCABULARY).scatter_add(1, ids, nucleus)
    return torch.randn(3, VOCABULARY), torch.tensor([3, 5, 7]), ids, dense


def test_kl_is_that_of_the_whole_distributions(sparse):
    logits, tokens, ids, dense = sparse
    found, _ = position_losses(
        "kl", logits, tokens, ids, dense.gather(1, ids) * (dense.gather(1, ids) > 0) * unique(ids)
    )
    wanted = torch.nn.functional.kl_div(logits.log_softmax(-1), dense, reduction="none").sum(-1)
    torch.testing.assert_close(found, wanted)


def unique(ids: torch.Tensor) -> torch.Tensor:
    """1 for the first place of each id in its row: unused entries repeat the id 0."""
    first = torch.ones_like(ids, dtype=torch.float32)
    for row, values in enumerate(ids.tolist()):
        for place, value in enumerate(values):
            first[row, place] = float(value not in values[:place])
    return first


def test_the_acceptance_loss_is_minus_the_logarithm_of_the_overlap(sparse):
    logits, tokens, ids, dense = sparse
    nucleus = dense.gather(1, ids) * unique(ids)
    losses, overlap = position_losses("acceptance", logits, tokens, ids, nucleus)
    wanted = torch.minimum(dense, logits.softmax(-1)).sum(-1)
    torch.testing.assert_close(overlap, wanted)
    torch.testing.assert_close(losses, -wanted.log())


def test_the_loss_tokens_needs_no_distributions(sparse):
    logits, tokens, ids, dense = sparse
    wanted = torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
    for entries, nucleus in ((None, None), (ids, dense.gather(1, ids))):
        losses, _ = position_losses("tokens", logits, tokens, entries, nucleus)
        torch.testing.assert_close(losses, wanted)


@pytest.mark.parametrize("loss", ["kl", "acceptance"])
def test_descending_the_loss_makes_the_draft_the_target(sparse, loss):
    logits, tokens, ids, dense = sparse
    nucleus = dense.gather(1, ids) * unique(ids)
    logits = logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        losses, overlap = position_losses(loss, logits, tokens, ids, nucleus)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    assert overlap.min() > 0.95
