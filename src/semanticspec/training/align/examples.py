"""What the draft is trained on: prompts, answers and the target's distributions, in the draft's tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

import torch
from torch import Tensor

from semanticspec.distributions import Distribution
from semanticspec.text.translation import Translation
from semanticspec.text.vocabulary import Vocabulary
from semanticspec.training.align.answers import Answer


@dataclass(frozen=True)
class Vocabularies:
    """Of target and draft, without their models."""

    target: Vocabulary
    draft: Vocabulary

    @cached_property
    def to_draft(self) -> Translation:
        """Translates the target's tokens to the draft's."""
        return Translation(self.target, self.draft)

    @cached_property
    def to_target(self) -> Translation:
        """Translates the draft's tokens to the target's."""
        return Translation(self.draft, self.target)

    def draft_prompt(self, prompt: str) -> list[int]:
        """Returns a prompt in the draft's tokens, as `Pair.render_draft_prompt` does."""
        target_ids = self.target.render_prompt(prompt)
        return self.draft.align_thinking(self.draft.render_prompt(prompt), self.target, target_ids)


@dataclass(frozen=True)
class Example:
    """A prompt and an answer in the draft's tokens.

    Attributes:
        distributions: of the target, one per token of the answer; none if the engine returned none, or if the
            vocabularies differ.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    distributions: tuple[Distribution, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True)
class Batch:
    """Examples side by side, padded on the right. Tensors are on the CPU.

    Attributes:
        input_ids, attention_mask: `[examples, tokens]`.
        places: `[positions, 2]`, example and position of every state that predicts a token of an answer.
        token_ids: `[positions]`, the tokens of the answers.
        nucleus_ids, nucleus: `[positions, entries]`, the target's distributions, which sum to 1; entries that are not
            used have probability 0. None if there are none.
    """

    input_ids: Tensor
    attention_mask: Tensor
    places: Tensor
    token_ids: Tensor
    nucleus_ids: Tensor | None
    nucleus: Tensor | None


def examples_of(vocabularies: Vocabularies, answers: Iterable[Answer], max_tokens: int) -> list[Example]:
    """Translates answers. Those whose prompt fills the draft's context are left out; others are cut to fit.

    Args:
        max_tokens: limit for prompt and answer together.
    """
    to_draft = vocabularies.to_draft
    found = []
    for answer in answers:
        prompt_ids = tuple(vocabularies.draft_prompt(answer.prompt))
        answer_ids = tuple(to_draft.context_ids(answer.token_ids))[: max(0, max_tokens - len(prompt_ids))]
        if not answer_ids:
            continue
        distributions: tuple[Distribution, ...] = ()
        if to_draft.by_ids and len(answer.nuclei) >= len(answer_ids):
            distributions = tuple(to_draft.distributions(answer.distributions[: len(answer_ids)]))
        found.append(Example(prompt_ids, answer_ids, distributions))
    return found


def batches(examples: Sequence[Example], max_tokens: int, random: Random | None) -> Iterator[list[Example]]:
    """Yields all examples in batches of at most `max_tokens` tokens with padding, examples of similar length together.

    Args:
        random: order of the batches and of examples of about the same length; None = from short to long.
    """
    noise = [random.uniform(0.9, 1.1) if random else 1.0 for _ in examples]
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i]) * noise[i], i))
    groups: list[list[Example]] = []
    for i in order:
        example = examples[i]
        longest = max([len(example), *(len(other) for other in groups[-1])]) if groups else 0
        if not groups or longest * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(example)
    if random:
        random.shuffle(groups)
    yield from groups


def collate(examples: Sequence[Example]) -> Batch:
    """Puts examples side by side."""
    length = max(map(len, examples))
    input_ids = torch.zeros(len(examples), length, dtype=torch.int64)
    attention_mask = torch.zeros(len(examples), length, dtype=torch.int64)
    places: list[tuple[int, int]] = []
    token_ids: list[int] = []
    rows: list[Distribution] = []
    for i, example in enumerate(examples):
        ids = (*example.prompt_ids, *example.answer_ids)
        input_ids[i, : len(ids)] = torch.tensor(ids)
        attention_mask[i, : len(ids)] = 1
        start = len(example.prompt_ids) - 1
        places += [(i, start + k) for k in range(len(example.answer_ids))]
        token_ids += example.answer_ids
        rows += example.distributions
    complete = len(rows) == len(token_ids)
    nucleus_ids, nucleus = _stacked(rows) if complete else (None, None)
    return Batch(
        input_ids, attention_mask, torch.tensor(places), torch.tensor(token_ids), nucleus_ids, nucleus
    )


def _stacked(rows: Sequence[Distribution]) -> tuple[Tensor, Tensor]:
    width = max(1, *(len(row.token_ids) for row in rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    probabilities = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        ids[i, : len(row.token_ids)] = torch.from_numpy(row.token_ids)
        probabilities[i, : len(row.token_ids)] = torch.from_numpy(row.probabilities)
    return ids, probabilities / probabilities.sum(1, keepdim=True).clamp_min(1e-9)
