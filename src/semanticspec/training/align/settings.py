"""Settings of an alignment, validated before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from semanticspec.records import Sampling

Loss = Literal["tokens", "kl", "acceptance"]
MAX_NUCLEUS = 64
"""Entries of a target's distribution that are kept; what is left out has little mass after top-p."""


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How the target answers the problems. These are the settings that the pair will be served with.

    Attributes:
        num_samples: answers to each problem.
        sampling: temperature and top-p.
        max_new_tokens: length limit of an answer.
        seed: seeds the answers, together with the problem's id.
    """

    num_samples: Annotated[int, Field(ge=1)] = 1
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: Annotated[int, Field(ge=1)] = 4096
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """How the draft is trained.

    Attributes:
        loss: `tokens` (cross-entropy on the target's tokens), `kl` (against the target's distributions), or
            `acceptance` (minus the logarithm of the probability that token-level speculation accepts a token). The last
            two need an engine that returns distributions, and one vocabulary. All are computed at the serving
            temperature. Sources: DistillSpec (arXiv 2310.08461); LK losses (arXiv 2602.23881).
        token_epochs: epochs on the target's tokens before another loss takes over.
        max_epochs: limit; training ends earlier if the acceptance on validation problems stops growing.
        patience: evaluations without a better acceptance after which training ends.
        evaluations_per_epoch: how often the acceptance is measured.
        rank, alpha, dropout: of LoRA on all linear layers except the head.
        learning_rate: largest one; it warms up and then falls to 0 as a cosine.
        batch_tokens: tokens of a batch, prompts included.
        right_only: leaves out answers that are wrong or cannot be graded.
        seed: order of the answers, initial weights.
    """

    loss: Loss = "kl"
    token_epochs: Annotated[int, Field(ge=0)] = 0
    max_epochs: Annotated[int, Field(ge=1)] = 3
    patience: Annotated[int, Field(ge=1)] = 2
    evaluations_per_epoch: Annotated[int, Field(ge=1)] = 2
    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    batch_tokens: Annotated[int, Field(ge=64)] = 4096
    right_only: bool = False
    seed: int = 0
