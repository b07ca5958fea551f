"""Passes that calls share: llama.cpp reads tokens of any sequences in one."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from torch import Tensor

from semanticspec.engines.llama_cpp.context import SILENT_TOKENS, LlamaContext
from semanticspec.engines.llama_cpp.kv_cache import Room

Spoken = tuple[Tensor, Tensor]
"""States `[tokens, hidden]` and logits `[tokens, vocabulary]`."""


@dataclass(slots=True, eq=False)
class Piece:
    """Tokens that a call wants read in one pass.

    Attributes:
        sequences: of each token, the number of the sequence it goes to.
        speaks: states and logits are wanted, of all its tokens.
        spoken: these, once the piece has been read.
        failure: what ended the pass it was in, if anything did.
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    sequences: Sequence[int]
    speaks: bool
    spoken: Spoken | None = None
    failure: Exception | None = None


class SharedBatch:
    """Gathers pieces of the calls at work; whoever has its turn runs a pass over all that fit together.

    While several calls are at work, each hands in its piece and lets the others have their turn first. So they meet
    in one pass, which costs little more than one call's alone: what takes the time is moving the weights.
    """

    def __init__(self, context: LlamaContext, room: Room) -> None:
        self._context = context
        self._room = room
        self._waiting: list[Piece] = []

    def read(self, piece: Piece) -> Generator[tuple[int, ...], None, Spoken | None]:
        """Reads a piece, and what else is waiting.

        Raises:
            EngineError: the pass failed. Every piece that was in it meets the same.
        """
        self._waiting.append(piece)
        try:
            if self._room.num_calls > 1:
                yield ()
            while piece in self._waiting:
                self._run_pass()
        finally:
            if piece in self._waiting:
                self._waiting.remove(piece)
        if piece.failure is not None:
            raise piece.failure
        return piece.spoken

    def _run_pass(self) -> None:
        """Reads the piece that waits longest, with those of its kind that fit beside it."""
        speaks = self._waiting[0].speaks
        left = self._context.max_spoken if speaks else SILENT_TOKENS
        taken: list[Piece] = []
        for piece in self._waiting:
            if piece.speaks == speaks and len(piece.token_ids) <= left:
                left -= len(piece.token_ids)
                taken.append(piece)
        self._waiting = [piece for piece in self._waiting if piece not in taken]
        try:
            spoken = self._context.decode(
                [token_id for piece in taken for token_id in piece.token_ids],
                [position for piece in taken for position in piece.positions],
                [sequence for piece in taken for sequence in piece.sequences],
                speaks,
            )
        except Exception as error:
            for piece in taken:
                piece.failure = error
            return
        start = 0
        for piece in taken:
            part = slice(start, start + len(piece.token_ids))
            start = part.stop
            if spoken is not None:  # copied: the next pass writes over llama.cpp's own
                piece.spoken = spoken[0][part].clone(), spoken[1][part].clone()
