"""Reading and writing with llama.cpp: what a call does from its context to its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semanticspec.engines.base import Pooling
from semanticspec.engines.llama_cpp.batching import Piece, SharedBatch, Spoken
from semanticspec.engines.llama_cpp.context import SILENT_TOKENS, LlamaContext
from semanticspec.engines.llama_cpp.kv_cache import LlamaSequence, Room
from semanticspec.engines.runtime.generation import WriteRequest, Writing
from semanticspec.engines.runtime.prefix_cache import Mark
from semanticspec.engines.runtime.scoring import ScoreReader, ScoreRequest
from semanticspec.records import Generation, Score

# So many rows of one call at most are written or scored side by side; further ones come after them.
_MAX_ROWS = 32
# A pass that speaks computes logits of all its tokens. Up to so many that nobody asks for cost less than a pass apart.
_NEEDLESSLY_SPOKEN = 32

Turns = Generator[tuple[int, ...], None, None]
Take = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What calls work with."""

    context: LlamaContext
    room: Room
    batch: SharedBatch
    pooling: Pooling


def write(parts: Parts, request: WriteRequest) -> Generator[tuple[int, ...], None, list[Generation]]:
    """Writes n continuations side by side; with n = 1 the tokens are yielded as they are written and kept."""
    start = len(request.context_ids)
    num_rows = min(request.n, _MAX_ROWS, (parts.context.cache_tokens - start) // request.max_tokens)
    generations: list[Generation] = []
    while len(generations) < request.n:  # usually once: further rounds where there are more than fit
        first = request.first_sample + len(generations)
        some = replace(request, n=min(num_rows, request.n - len(generations)), first_sample=first)
        place = yield from parts.room.enter(start + some.n * some.max_tokens, 1 + some.n)
        with parts.room.sequence(place, some.context_ids, start, some.request_id) as sequence:
            generations += yield from _write_rows(parts, some, sequence)
    return generations


def _write_rows(
    parts: Parts, request: WriteRequest, sequence: LlamaSequence
) -> Generator[tuple[int, ...], None, list[Generation]]:
    mark = yield from _read_context(parts, sequence, request.context_ids)
    writing = Writing(request, parts.pooling, mark)
    if request.n == 1:
        yield from _decode(parts, writing, [sequence])
    else:
        with _copies(sequence, request.n) as copies:
            yield from _decode(parts, writing, copies)
    return writing.generations()


def _decode(parts: Parts, writing: Writing, rows: list[LlamaSequence]) -> Turns:
    """Writes all rows to their ends, one token of each in a pass."""
    while (yield from writing.needs_step()):
        going_on = writing.going_on()
        if len(going_on) < len(rows):
            writing.keep(torch.tensor(going_on))
            rows = [rows[index] for index in going_on]
        token_ids = writing.next_ids.flatten().tolist()
        positions = [len(row.token_ids) for row in rows]
        states, logits = yield from _spoken(
            parts, Piece(token_ids, positions, [row.number for row in rows], True)
        )
        for row, token_id in zip(rows, token_ids, strict=True):
            row.token_ids.append(token_id)
        writing.advance(states, logits)


def score(parts: Parts, request: ScoreRequest) -> Generator[tuple[int, ...], None, list[Score]]:
    """Scores continuations: one in the sequence that is kept, several side by side in copies of the context's."""
    start, lengths = len(request.context_ids), list(map(len, request.continuations))
    several = len(lengths) > 1
    num_rows = min(len(lengths), _MAX_ROWS, (parts.context.cache_tokens - start) // max(lengths))
    place = yield from parts.room.enter(start + num_rows * max(lengths), 1 + num_rows * several)
    token_ids = request.context_ids + ([] if several else request.continuations[0])
    with parts.room.sequence(place, token_ids, start, request.request_id) as sequence:
        if not several:
            return [(yield from _score_one(parts, request, sequence, token_ids))]
        mark = yield from _read_context(parts, sequence, request.context_ids)
        scores: list[Score] = []
        while len(scores) < len(lengths):
            some = request.continuations[len(scores) : len(scores) + num_rows]
            scores += yield from _score_rows(parts, request, sequence, mark, some)
        return scores


def _score_one(
    parts: Parts, request: ScoreRequest, sequence: LlamaSequence, token_ids: list[int]
) -> Generator[tuple[int, ...], None, Score]:
    """Reads context and continuation at one go. Leaves marks at both ends of the continuation."""
    start = len(request.context_ids)
    reader = ScoreReader(request, token_ids[start:], parts.pooling)
    if len(sequence.token_ids) == start:
        mark = sequence.marks[start]
        reader.add(mark.state[None], mark.logits[None])

    def take(states: Tensor, logits: Tensor) -> None:
        if start not in sequence.marks:
            sequence.marks[start] = Mark(states[0].clone(), logits[0].clone())
        reader.add(states, logits)
        if len(sequence.token_ids) == len(token_ids):
            sequence.marks[len(token_ids)] = Mark(states[-1].clone(), logits[-1].clone())

    yield from _read_on(parts, sequence, token_ids, start - 1, take)
    return reader.score()


def _score_rows(
    parts: Parts, request: ScoreRequest, sequence: LlamaSequence, mark: Mark, rows: list[list[int]]
) -> Generator[tuple[int, ...], None, list[Score]]:
    """Reads several continuations of what `sequence` holds in as few passes as their tokens fit into."""
    start = len(request.context_ids)
    readers = [ScoreReader(request, row, parts.pooling) for row in rows]
    for reader in readers:
        reader.add(mark.state[None], mark.logits[None])
    places = [(index, place) for index, row in enumerate(rows) for place in range(len(row))]
    with _copies(sequence, len(rows)) as copies:
        for first in range(0, len(places), parts.context.max_spoken):
            some = places[first : first + parts.context.max_spoken]
            piece = Piece(
                [rows[index][place] for index, place in some],
                [start + place for _, place in some],
                [copies[index].number for index, _ in some],
                speaks=True,
            )
            states, logits = yield from _spoken(parts, piece)
            at = 0
            for index, count in Counter(index for index, _ in some).items():  # in their order
                readers[index].add(states[at : at + count], logits[at : at + count])
                at += count
            yield ()
    return [reader.score() for reader in readers]


def _read_context(
    parts: Parts, sequence: LlamaSequence, context_ids: list[int]
) -> Generator[tuple[int, ...], None, Mark]:
    """Reads what `sequence` lacks of the context; returns the state and logits at its end."""

    def take(states: Tensor, logits: Tensor) -> None:
        sequence.marks[len(context_ids)] = Mark(states[-1].clone(), logits[-1].clone())

    yield from _read_on(parts, sequence, context_ids, len(context_ids) - 1, take)
    return sequence.marks[len(context_ids)]


def _read_on(
    parts: Parts, sequence: LlamaSequence, token_ids: list[int], first_wanted: int, take: Take
) -> Turns:
    """Reads what `sequence` lacks of `token_ids`, and hands on what is said from index `first_wanted`."""
    while (start := len(sequence.token_ids)) < len(token_ids):
        silent = first_wanted - start
        speaks = silent <= min(_NEEDLESSLY_SPOKEN, parts.context.max_spoken - 1)
        end = start + (parts.context.max_spoken if speaks else min(silent, SILENT_TOKENS))
        piece_ids = token_ids[start:end]
        positions = range(start, start + len(piece_ids))
        piece = Piece(piece_ids, positions, [sequence.number] * len(piece_ids), speaks)
        spoken = yield from parts.batch.read(piece)
        sequence.token_ids += piece_ids
        if spoken is not None:
            states, logits = spoken
            take(states[max(0, silent) :], logits[max(0, silent) :])
        if len(sequence.token_ids) < len(token_ids):
            yield ()  # others get their turn, and a cancelled call ends here


@contextmanager
def _copies(sequence: LlamaSequence, count: int) -> Iterator[list[LlamaSequence]]:
    """Copies of a sequence that nobody needs afterwards."""
    copies: list[LlamaSequence] = []
    try:
        copies += (sequence.copied(len(sequence.token_ids)) for _ in range(count))
        yield copies
    finally:
        for copy in copies:
            copy.free()


def _spoken(parts: Parts, piece: Piece) -> Generator[tuple[int, ...], None, Spoken]:
    spoken = yield from parts.batch.read(piece)
    assert spoken is not None, "a piece that speaks has something to say"
    return spoken
