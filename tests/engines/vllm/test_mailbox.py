"""States arrive under the numbers they were sent with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import torch

from semanticspec.engines.vllm.mailbox import Mailbox, Sender


async def test_states_arrive_by_number() -> None:
    box = Mailbox()
    try:
        later, first, dropped = box.expect(7), box.expect(2**40), box.expect(8)
        box.discard(8)
        states = torch.randn(3, 5120)

        def post() -> None:
            sender = Sender(box.address)
            for number, state in zip((8, 2**40, 7), states, strict=True):
                sender.post(number, state)
            sender.post(99, states[0])  # nobody waits for this one

        await asyncio.to_thread(post)
        assert torch.equal(await asyncio.wait_for(first, 5), states[1])
        assert torch.equal(await asyncio.wait_for(later, 5), states[2])
        assert not dropped.done()
    finally:
        box.close()
    assert not Path(box.address).exists()
