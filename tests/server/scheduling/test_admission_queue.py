"""The bounded queue in front of the models."""

from __future__ import annotations

import asyncio

from tests.support.serving import live, slow_pair, until


async def test_full_queue_returns_429_at_once_and_recovers():
    pair = slow_pair()
    async with live(pair, max_concurrent_requests=2, max_queued_requests=1) as server:
        waiting = [asyncio.create_task(server.chat(max_tokens=20)) for _ in range(3)]
        await until(lambda: (server.service.queue.running, server.service.queue.waiting) == (2, 1))
        async with asyncio.timeout(0.5):
            refused = await server.chat(max_tokens=1)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await server.chat(n=4)).status_code == 400
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
        assert (await server.chat(max_tokens=1)).status_code == 200
        figures = await server.metrics()
        assert figures["semanticspec:requests_refused_total"] == 1
        assert server.service.queue.running == server.service.queue.waiting == 0
