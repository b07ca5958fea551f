"""Decoding side by side: the rows of several calls, read in one pass of the model.

A pass costs about the same for one row as for a dozen, since what takes the time is moving the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache

from semanticspec.engines.transformers.network import Network

# Rows that have ended leave once they are this share of the batch: copying the others costs time too.
_ENDED_SHARE = 0.25


class Member(Protocol):
    """A call with rows in a batch.

    Attributes:
        next_ids: the tokens its rows go on with, `[rows, 1]`.
        failure: what ended the pass it took part in, if anything did.
    """

    next_ids: Tensor
    failure: Exception | None

    def advance(self, states: Tensor, logits: Tensor) -> None:
        """Takes what the model says after `next_ids`: states `[rows, hidden]`, logits `[rows, vocabulary]`."""
        ...

    def going_on(self) -> list[int]:
        """Indices of the rows whose place in the cache is still needed."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Forgets all rows but those with these indices."""
        ...


class RowBatch:
    """Rows over one cache, aligned at their ends; shorter ones have nothing in their first places.

    Attributes:
        num_calls: how many calls are decoding with this network, in this batch or by themselves.
    """

    def __init__(self, network: Network) -> None:
        self.num_calls = 0
        self._network = network
        self._members: list[Member] = []
        self._cache: Cache | None = None
        self._empty_places: list[int] = []  # of every row

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a call in `num_calls` while it decodes."""
        self.num_calls += 1
        try:
            yield
        finally:
            self.num_calls -= 1

    def join(self, member: Member, cache: Cache) -> None:
        """Adds a call's rows; `cache` holds what comes before their `next_ids` and belongs to the batch now."""
        new = 0
        if self._cache is None:
            self._cache = cache
        else:
            new = self._cache.get_seq_length() - cache.get_seq_length()
            for layer, added in zip(self._cache.layers, cache.layers, strict=True):
                layer.join(added)
            self._empty_places = [places + max(0, -new) for places in self._empty_places]
        self._empty_places += [max(0, new)] * len(member.next_ids)
        self._members.append(member)

    def step(self) -> None:
        """One pass over all rows; every member advances by a token.

        A failure of the pass leaves no row in order: it is told to every member. One that a member meets in what it
        makes of the pass is its own.
        """
        members, cache = list(self._members), self._cache
        assert cache is not None, "a batch without rows takes no steps"
        try:
            token_ids = members[0].next_ids
            if len(members) > 1:
                token_ids = torch.cat([member.next_ids for member in members])
            states, own = self._network.run(token_ids, cache, self._empty_places)
            state = states[:, -1]
            logits = self._network.logits(state, None if own is None else own[:, -1])
        except Exception as error:
            for member in members:
                member.failure = error
            self._forget()
            return
        start = 0
        for member in members:
            part = slice(start, start + len(member.next_ids))
            start = part.stop
            try:
                member.advance(state[part], logits[part])
            except Exception as error:
                member.failure = error
        going_on = sum(len(member.going_on()) for member in members)
        if start - going_on >= _ENDED_SHARE * start:
            self._drop()

    def leave(self, member: Member) -> None:
        """Takes a call's rows out, if it has any here."""
        if member in self._members:
            self._drop(leaving=member)

    def row_of(self, member: Member, start: int, end: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the tokens from `start` to `end` of a member's only row, a pair for every layer."""
        assert self._cache is not None
        index = sum(len(other.next_ids) for other in self._members[: self._members.index(member)])
        first = self._empty_places[index]
        return [layer.row(index, first + start, first + end) for layer in self._cache.layers]

    def _drop(self, leaving: Member | None = None) -> None:
        """Takes the rows out that are no longer needed, and with them places that all others leave empty."""
        assert self._cache is not None
        kept: list[int] = []
        members: list[Member] = []
        start = 0
        for member in self._members:
            num_rows = len(member.next_ids)
            rows = [] if member is leaving else member.going_on()
            if rows:
                members.append(member)
                member.keep(torch.tensor(rows, device=self._network.device))
            kept += [start + row for row in rows]
            start += num_rows
        self._members = members
        if not kept:
            self._forget()
            return
        empty_places = [self._empty_places[index] for index in kept]
        first = min(empty_places)
        indices = torch.tensor(kept, device=self._network.device)
        for layer in self._cache.layers:
            layer.select(indices, first)
        self._empty_places = [places - first for places in empty_places]

    def _forget(self) -> None:
        self._members, self._cache, self._empty_places = [], None, []
