"""Reading with a model: filling a cache up to the end of a context, and scoring continuations."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from semanticspec.engines.runtime.prefix_cache import CachePool, Mark
from semanticspec.engines.runtime.scoring import ScoreReader, ScoreRequest
from semanticspec.engines.transformers.kv_cache import CachedSequence
from semanticspec.engines.transformers.network import Network
from semanticspec.records import Score

# A long context is read in pieces: other calls get their turn in between, and masks stay small.
PIECE_TOKENS = 1024
# Logits are computed for so many numbers at a time: 64 MB in float32.
_LOGITS_AT_ONCE = 2**24
# Continuations are padded to one length only as far as that is cheaper than another pass over the weights,
# which is worth about this many tokens; and never to more tokens than a batch may hold.
_PASS_TOKENS = 64
_BATCH_TOKENS = 4096


def read_context(
    network: Network, sequence: CachedSequence, context_ids: list[int]
) -> Generator[tuple[int, ...], None, Mark]:
    """Reads what `sequence` lacks of the context; returns the state and logits at its end."""
    end = len(context_ids)
    while len(sequence.token_ids) < end:
        start = len(sequence.token_ids)
        piece = context_ids[start : start + PIECE_TOKENS]
        states, own = network.run(network.tokens(piece), sequence.cache)
        sequence.token_ids.extend(piece)
        if start + len(piece) < end:
            yield ()
        else:
            logits = network.logits(states[:, -1], None if own is None else own[:, -1])
            sequence.marks[end] = _mark(network, states[0], None if own is None else own[0], logits, -1)
    return sequence.marks[end]


def score(
    network: Network, pool: CachePool[CachedSequence], request: ScoreRequest
) -> Generator[tuple[int, ...], None, list[Score]]:
    """Scores continuations: one in a pass over context tail and continuation, several in a padded batch."""
    if len(request.continuations) > 1 and network.reusable:
        return (yield from _score_batch(network, pool, request))
    scores = []
    for continuation in request.continuations:
        scores.append((yield from _score_one(network, pool, request, continuation)))
        yield ()
    return scores


def _score_one(
    network: Network, pool: CachePool[CachedSequence], request: ScoreRequest, continuation: list[int]
) -> Generator[tuple[int, ...], None, Score]:
    token_ids = request.context_ids + continuation
    first = len(request.context_ids) - 1  # index of the first predicting position
    sequence = pool.acquire(token_ids, len(request.context_ids), request.request_id)
    try:
        states: list[Tensor] = []
        own: list[Tensor] = []
        if len(sequence.token_ids) > first:  # the whole context is there, with what was said at its end
            mark = sequence.marks[first + 1]
            states.append(mark.state[None])
            if mark.own is not None:
                own.append(mark.own[None])
        while len(sequence.token_ids) < len(token_ids):
            start = len(sequence.token_ids)
            piece = token_ids[start : start + PIECE_TOKENS]
            piece_states, piece_own = network.run(network.tokens(piece), sequence.cache)
            sequence.token_ids.extend(piece)
            skipped = max(0, first - start)
            states.append(piece_states[0, skipped:])
            if piece_own is not None:
                own.append(piece_own[0, skipped:])
            yield ()
        whole_states = torch.cat(states)
        whole_own = torch.cat(own) if own else None
        return _read(network, request, continuation, whole_states, whole_own, sequence)
    finally:
        pool.release(sequence)


def _score_batch(
    network: Network, pool: CachePool[CachedSequence], request: ScoreRequest
) -> Generator[tuple[int, ...], None, list[Score]]:
    """Reads continuations of like length at once. Their caches are kept for a request, which goes on from one of them.

    Padded at the right: with causal attention no real token sees the padding.
    """
    scores: dict[int, Score] = {}
    sequence = pool.acquire(request.context_ids, len(request.context_ids), request.request_id)
    try:
        mark = yield from read_context(network, sequence, request.context_ids)
        for indices in _batches([len(row) for row in request.continuations]):
            rows = [request.continuations[index] for index in indices]
            longest = max(map(len, rows))
            padded = [row + [row[-1]] * (longest - len(row)) for row in rows]
            cache = sequence.expanded(len(rows))
            states, own = network.run(torch.tensor(padded, device=network.device), cache)
            for place, (index, row) in enumerate(zip(indices, rows, strict=True)):
                yield ()
                row_states = torch.cat((mark.state[None], states[place, : len(row)]))
                row_own = None
                if own is not None and mark.own is not None:
                    row_own = torch.cat((mark.own[None], own[place, : len(row)]))
                kept = None
                if request.request_id is not None:
                    kept = sequence.extended(cache, place, row)
                scores[index] = _read(network, request, row, row_states, row_own, kept)
                if kept is not None:
                    pool.release(kept)
    finally:
        pool.release(sequence)
    return [scores[index] for index in range(len(request.continuations))]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of continuations to be read together, so that little of a batch is padding."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        grown = [*batches[-1], index] if batches else []
        real, padded = sum(lengths[i] for i in grown), len(grown) * lengths[index]
        if grown and padded <= _BATCH_TOKENS and padded - real <= max(_PASS_TOKENS, real // 4):
            batches[-1] = grown
        else:
            batches.append([index])
    return batches


def _read(
    network: Network,
    request: ScoreRequest,
    continuation: list[int],
    states: Tensor,
    own: Tensor | None,
    sequence: CachedSequence | None,
) -> Score:
    """Turns states at the predicting positions and the last token, `[tokens + 1, hidden]`, into a score.

    Leaves marks at both ends of the continuation in `sequence`.
    """
    reader = ScoreReader(request, continuation, network.states.pooling)
    step = max(1, _LOGITS_AT_ONCE // network.vocabulary_size)
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        logits = network.logits(states[part], None if own is None else own[part])
        reader.add(states[part], logits)
        if sequence is not None and start == 0:
            sequence.marks[len(request.context_ids)] = _mark(network, states, own, logits, 0)
    if sequence is not None:
        sequence.marks[len(sequence.token_ids)] = _mark(network, states, own, logits, -1)
    return reader.score()


def _mark(network: Network, states: Tensor, own: Tensor | None, logits: Tensor, index: int) -> Mark:
    """The mark at a row of states `[seq, hidden]` and of logits; cloned, so as not to keep the rest alive.

    `states` and `logits` may be of unequal length, as long as the index means the same position in both.
    """
    said = logits[index].clone()
    kept = said if network.computes_logits else None if own is None else own[index].clone()
    return Mark(states[index].clone(), said, kept)
