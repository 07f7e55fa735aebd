"""The asynchronous Python SDK, end to end."""

import asyncio

import pytest
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    FilesystemEventType,
    PtySize,
    SandboxNotFoundException,
    SandboxQuery,
    TimeoutException,
)


@pytest.fixture
async def mine(sandbox):
    """The module's sandbox through the asynchronous client."""
    return await AsyncSandbox.connect(sandbox.sandbox_id)


async def test_a_whole_life(unique):
    async with await AsyncSandbox.create(timeout=60, metadata={"who": unique}) as sandbox:
        assert (await sandbox.commands.run("echo hi")).stdout == "hi\n"
        await sandbox.files.write("a.txt", "text")
        assert await sandbox.files.read("a.txt") == "text"
        info = await sandbox.get_info()
        assert info.metadata == {"who": unique} and info.sandbox_id == sandbox.sandbox_id
        pages = AsyncSandbox.list(query=SandboxQuery(metadata={"who": unique}))
        assert [i.sandbox_id for i in await pages.next_items()] == [sandbox.sandbox_id]
        assert not pages.has_next
        await sandbox.set_timeout(120)
        assert await sandbox.is_running()
    assert not await sandbox.is_running()
    assert await AsyncSandbox.kill(sandbox.sandbox_id) is False
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.get_info(sandbox.sandbox_id)


async def test_a_bad_key():
    with pytest.raises(AuthenticationException):
        await AsyncSandbox.create(api_key="e2b_" + "00" * 20)


async def test_ten_creates_at_once():
    made = await asyncio.gather(*(AsyncSandbox.create(timeout=60) for _ in range(10)))
    try:
        results = await asyncio.gather(*(s.commands.run(f"echo {n}") for n, s in enumerate(made)))
        assert [r.stdout for r in results] == [f"{n}\n" for n in range(10)]
    finally:
        assert all(await asyncio.gather(*(s.kill() for s in made)))


async def test_output_callbacks_and_exit_codes(mine):
    out: list[str] = []
    err: list[str] = []
    with pytest.raises(CommandExitException) as raised:
        await mine.commands.run(
            "echo one; echo two >&2; exit 3", on_stdout=out.append, on_stderr=err.append
        )
    assert raised.value.exit_code == 3 and raised.value.error == "exit status 3"
    assert "".join(out) == "one\n" and "".join(err) == "two\n"


async def test_a_background_command_is_joined_and_killed(mine):
    handle = await mine.commands.run("sleep 60", background=True)
    assert handle.pid in [p.pid for p in await mine.commands.list()]
    joined = await mine.commands.connect(handle.pid)
    assert await mine.commands.kill(handle.pid) is True
    for each in (handle, joined):
        with pytest.raises(CommandExitException):
            await each.wait()
    assert await mine.commands.kill(handle.pid) is False


async def test_many_commands_at_once(mine):
    results = await asyncio.gather(*(mine.commands.run(f"sleep 0.1; echo {n}") for n in range(30)))
    assert [r.stdout for r in results] == [f"{n}\n" for n in range(30)]


async def test_streamed_stdin(mine):
    handle = await mine.commands.run("head -n 3", background=True, stdin=True)
    await handle.send_stdin("one\n")
    async with mine.commands.stream_input(handle.pid) as stdin:
        await stdin.send("two\n")
        await stdin.send(b"three\n")
    assert (await handle.wait()).stdout == "one\ntwo\nthree\n"


async def test_a_timeout(mine):
    with pytest.raises(TimeoutException):
        await mine.commands.run("sleep 30", timeout=1)


async def test_a_watch(mine, folder):
    events: asyncio.Queue = asyncio.Queue()
    handle = await mine.files.watch_dir(folder, events.put)
    await mine.files.write(f"{folder}/f", "x")
    seen = [(await asyncio.wait_for(events.get(), 10)) for _ in range(3)]
    assert [(e.name, e.type) for e in seen] == [
        ("f", FilesystemEventType.CREATE),
        ("f", FilesystemEventType.CHMOD),
        ("f", FilesystemEventType.WRITE),
    ]
    await handle.stop()


async def test_a_terminal(mine):
    output = bytearray()
    handle = await mine.pty.create(PtySize(rows=24, cols=80), on_data=output.extend, timeout=20)
    await mine.pty.send_stdin(handle.pid, b"echo async-$(tput cols)\nexit\n")
    await handle.wait()
    assert b"async-80" in output


async def test_files(mine, folder):
    assert await mine.files.make_dir(f"{folder}/d") is True
    assert await mine.files.make_dir(f"{folder}/d") is False
    data = bytes(range(256)) * 1000
    await mine.files.write(f"{folder}/d/bin", data)
    assert await mine.files.read(f"{folder}/d/bin", format="bytes") == data
    stream = await mine.files.read(f"{folder}/d/bin", format="stream")
    assert b"".join([chunk async for chunk in stream]) == data
    moved = await mine.files.rename(f"{folder}/d/bin", f"{folder}/moved")
    assert moved.path == f"{folder}/moved"
    assert [e.name for e in await mine.files.list(folder)] == ["d", "moved"]
    await mine.files.remove(f"{folder}/moved")
    assert await mine.files.exists(f"{folder}/moved") is False
    with pytest.raises(FileNotFoundException):
        await mine.files.read(f"{folder}/moved")


async def test_a_kill_ends_a_stream():
    sandbox = await AsyncSandbox.create(timeout=60)
    handle = await sandbox.commands.run("sleep 60", background=True)
    await sandbox.kill()
    with pytest.raises(TimeoutException, match="sandbox was killed or reached its"):
        await handle.wait()
