"""Shutdown of a server, and what importing it costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from tests.support.serving import events_of, live, slow_pair, until


async def test_shutdown_lets_requests_finish_and_accepts_no_more():
    async with live(slow_pair()) as server:
        running = asyncio.create_task(server.chat(max_tokens=20))
        await until(lambda: server.service.queue.running == 1)
        server.service.draining = True
        assert (await server.chat()).json()["error"]["code"] == "shutting_down"
        assert (await server.http.get("/health")).status_code == 503
        server.server.should_exit = True
        assert (await running).json()["usage"]["completion_tokens"] == 20


async def test_shutdown_ends_late_streams_with_an_error():
    pair = slow_pair()
    async with live(pair, shutdown_timeout_s=0.1) as server:
        reading = asyncio.create_task(server.chat(stream=True))
        await until(lambda: server.service.queue.running == 1)
        server.server.should_exit = True
        chunks = await events_of(await reading)
    assert chunks[-1]["error"]["code"] == "shutting_down"
    assert pair.target.engine.running_calls + pair.draft.engine.running_calls == 0


def test_importing_the_command_line_does_not_import_the_server():
    code = (
        "import sys, semanticspec.commands.main; "
        "print([m for m in sys.modules if m in ('fastapi', 'uvicorn', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done
