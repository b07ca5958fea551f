"""Transports pooled states out of vLLM's processes, as datagrams over a Unix socket. Does not import vLLM.

vLLM finalizes a request's output before its worker pools the states, and with tensor parallelism the worker is another
process. So the worker sends the states here, under a number that the request carries.
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
_MAX_MESSAGE_BYTES = 1 << 20  # 8 times a state of 32768 values


class Mailbox:
    """Receives states. Belongs to one event loop.

    Attributes:
        address: path of the socket.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="semanticspec-"))
        self.address = str(self._folder / "states")
        self._expected: dict[int, asyncio.Future[Tensor]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self.address)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def expect(self, number: int) -> asyncio.Future[Tensor]:
        """Returns a future for the state sent under `number`, `[hidden]`, float32."""
        future: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._expected[number] = future
        return future

    def discard(self, number: int) -> None:
        """Ignores what is sent under `number` from now on."""
        self._expected.pop(number, None)

    def close(self) -> None:
        """Removes the socket."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> None:
        while True:
            try:
                message = self._socket.recv(_MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            (number,) = _NUMBER.unpack_from(message)
            future = self._expected.pop(number, None)
            if future is not None and not future.done():
                values = bytearray(message[_NUMBER.size :])
                future.set_result(torch.frombuffer(values, dtype=torch.float32))


class Sender:
    """The worker's side."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def post(self, number: int, state: Tensor) -> None:
        """Sends a state, `[hidden]`, float32, on the CPU. Blocks while the socket's buffer is full."""
        self._socket.sendto(_NUMBER.pack(number) + state.contiguous().numpy().tobytes(), self._address)
