"""Training sequences of the demo models: solved problems and bare sums, as token ids with labels."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.demo_pair.tokenizer import TURN_END
from semanticspec.demo.meanings import StyleName
from semanticspec.demo.stories import make_problem, split_of
from semanticspec.demo.traces import write_trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
_SUMS_PER_DRILL = 14
_CHUNK = 1200
# Share of one-person problems that are replaced by a new draw: two people are what is hard to learn.
_REDRAWN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Sequence:
    """Token ids and, for each, the label it is learned as (`IGNORED` for context)."""

    ids: list[int]
    labels: list[int]


def _draw_sum(rng: random.Random) -> tuple[str, str]:
    """Draws one computation from the ranges the stories use: left side and result."""
    top = 99 if rng.random() < 0.6 else 199
    match rng.choice("++++----*/d"):
        case "+":
            first, second = rng.randint(2, top), rng.randint(2, 60 if rng.random() < 0.7 else top)
            return f"{first} + {second} =", f" {first + second}"
        case "-":
            first = rng.randint(4, top)
            second = rng.randint(2, first - 2)
            return f"{first} - {second} =", f" {first - second}"
        case "*":
            first, second = rng.randint(2, 5), rng.randint(2, 20)
            return f"{first} * {second} =", f" {first * second}"
        case "/":
            first = 2 * rng.randint(2, 100)
            return f"{first} / 2 =", f" {first // 2}"
        case _:
            first = rng.randint(2, 100)
            return f"2 * {first} =", f" {2 * first}"


def drill(rng: random.Random) -> list[tuple[str, bool]]:
    """Writes a row of bare sums; only the results are to be learned."""
    pieces: list[tuple[str, bool]] = []
    for _ in range(_SUMS_PER_DRILL):
        left, result = _draw_sum(rng)
        pieces += [(f" {left}", False), (result, True), (",", False)]
    return pieces


def solution(
    style: StyleName, rng: random.Random, tokenizer: PreTrainedTokenizerFast
) -> list[tuple[str, bool]]:
    """Writes a problem of the training split in chat format with its solution."""
    problem = make_problem(rng)
    while split_of(problem.text) != "train" or (
        len({step.who for step in problem.steps}) == 1 and rng.random() < _REDRAWN_SHARE
    ):
        problem = make_problem(rng)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": problem.text}], tokenize=False, add_generation_prompt=True
    )
    pieces = [(piece.text, piece.learn) for piece in write_trace(problem, style, rng)]
    return [(str(prompt), False), *pieces, (TURN_END, True)]


def _encode(texts: list[list[tuple[str, bool]]], tokenizer: PreTrainedTokenizerFast) -> list[Sequence]:
    """Encodes pieces as one text each; a token is learned if no part of it is masked."""
    encodings = tokenizer.backend_tokenizer.encode_batch(
        ["".join(text for text, _ in pieces) for pieces in texts], add_special_tokens=False
    )
    sequences = []
    for pieces, encoding in zip(texts, encodings, strict=True):
        learn = [flag for text, flag in pieces for _ in text]
        labels = [
            token if all(learn[start:end]) else IGNORED
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        sequences.append(Sequence(encoding.ids, labels))
    return sequences


def sequences(
    style: StyleName,
    drill_share: float,
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    count: int = _CHUNK,
) -> list[Sequence]:
    """Generates `count` training sequences; a share of them are drills."""
    texts = []
    for _ in range(count):
        if rng.random() < drill_share:
            texts.append(drill(rng))
        else:
            texts.append(solution(style, rng, tokenizer))
    return _encode(texts, tokenizer)


def batches(made: list[Sequence], tokens_per_batch: int, rng: random.Random) -> Iterator[list[Sequence]]:
    """Groups sequences of similar length, about `tokens_per_batch` with padding; random order of groups."""
    by_length = sorted(made, key=lambda sequence: len(sequence.ids))
    groups: list[list[Sequence]] = [[]]
    for sequence in by_length:
        if (len(groups[-1]) + 1) * len(sequence.ids) > tokens_per_batch:
            groups.append([])
        groups[-1].append(sequence)
    rng.shuffle(groups)
    yield from (group for group in groups if group)
