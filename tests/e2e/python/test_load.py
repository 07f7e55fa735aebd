"""Many connections through the proxy at once: nothing is dropped."""

import asyncio
from pathlib import Path

import httpx
import pytest
from e2b import Sandbox
from websockets.asyncio.client import connect

from support import env
from support.env import host_of
from support.guest import WAIT

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

PORT = 8080
SOCKETS = 1000
STREAMS = 200
#: Connections that are opened at the same moment.
AT_ONCE = 50
EVENTS = 20
PAUSE = 0.4
SOURCE = Path(__file__).with_name("support") / "guest_load.py"


async def held(opening: asyncio.Semaphore, host: str, idle: asyncio.Barrier, number: int) -> None:
    """Opens a WebSocket, says nothing until all is done, and finds it alive."""
    url = httpx.URL(env.SANDBOX_URL)
    async with opening:
        socket = await connect(
            f"ws://{host}/ws",
            host=url.host,
            port=url.port,
            proxy=None,
            compression=None,
            ping_interval=None,
            open_timeout=60,
        )
    async with socket:
        await idle.wait()
        await idle.wait()
        async with opening:
            text = f"still here: {number}"
            await socket.send(text)
            assert await socket.recv() == text


async def streamed(client: httpx.AsyncClient, host: str) -> None:
    """Reads a stream of events to its end and misses none."""
    path = f"/stream/{EVENTS}/{PAUSE}"
    seen = []
    async with client.stream("GET", path, headers={"host": host}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line:
                seen.append(line)
    assert seen == [f"data: {number}" for number in range(EVENTS)]


async def load(host: str) -> None:
    opening = asyncio.Semaphore(AT_ONCE)
    idle = asyncio.Barrier(SOCKETS + 1)
    limits = httpx.Limits(max_connections=STREAMS)
    client = httpx.AsyncClient(
        base_url=env.SANDBOX_URL, trust_env=False, limits=limits, timeout=60
    )
    async with client, asyncio.TaskGroup() as group:
        for number in range(SOCKETS):
            group.create_task(held(opening, host, idle, number))
        await idle.wait()
        async with asyncio.TaskGroup() as streams:
            for _ in range(STREAMS):
                streams.create_task(streamed(client, host))
        await idle.wait()


def test_a_thousand_idle_websockets_and_two_hundred_streams():
    with Sandbox.create(timeout=300) as sandbox:
        sandbox.files.write("/tmp/guest_load.py", SOURCE.read_text())
        command = f"ulimit -n 8192; exec python3 /tmp/guest_load.py {PORT}"
        sandbox.commands.run(command, background=True, timeout=0)
        sandbox.commands.run(WAIT.format(port=PORT))
        asyncio.run(load(host_of(PORT, sandbox.sandbox_id)))
        # The sandbox is as well as before.
        assert sandbox.commands.run("echo ok").stdout == "ok\n"
