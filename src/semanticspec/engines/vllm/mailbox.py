"""How pooled states leave vLLM's processes: a datagram each, over a socket of this machine. Needs no vLLM.

What vLLM returns for a request is fixed before its worker has pooled the request's states, and with tensor parallelism
the worker is a process of its own. So the worker posts them here, under the number that the request was given.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import tempfile
from pathlib import Path

import torch
from torch import Tensor

_NUMBER = struct.Struct("<Q")
_LONGEST = 1 << 20  # bytes; a state of 32768 values takes an eighth of it


class Mailbox:
    """Where the states come. It belongs to one event loop.

    Attributes:
        address: the socket's path.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="semanticspec-"))
        self.address = str(self._folder / "states")
        self._waiting: dict[int, asyncio.Future[Tensor]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self.address)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def expect(self, number: int) -> asyncio.Future[Tensor]:
        """The state that will be posted under a number, `[hidden]`, float32."""
        future: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        return future

    def forget(self, number: int) -> None:
        """What comes under this number from now on is dropped."""
        self._waiting.pop(number, None)

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            (number,) = _NUMBER.unpack_from(message)
            future = self._waiting.pop(number, None)
            if future is not None and not future.done():
                values = bytearray(message[_NUMBER.size :])
                future.set_result(torch.frombuffer(values, dtype=torch.float32))

    def close(self) -> None:
        """Removes the socket."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Sender:
    """The worker's side."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def post(self, number: int, state: Tensor) -> None:
        """Sends a state, `[hidden]`, float32, on the CPU; waits while the box is full."""
        self._socket.sendto(_NUMBER.pack(number) + state.contiguous().numpy().tobytes(), self._address)
