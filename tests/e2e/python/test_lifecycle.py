"""Pause, resume, snapshots and forks through the official SDK."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2b import AsyncSandbox, Sandbox
from e2b.exceptions import SandboxException
from e2b.sandbox.sandbox_api import SandboxQuery, SandboxState

from support import env

COUNTER = "i=0; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done"


@pytest.fixture
def sandbox_with():
    """Makes sandboxes and kills them after the test."""
    made = []

    def make(**options) -> Sandbox:
        sandbox = Sandbox.create(timeout=120, **options)
        made.append(sandbox)
        return sandbox

    yield make
    for sandbox in made:
        sandbox.kill()


def count(sandbox: Sandbox) -> int:
    for _ in range(50):
        text = sandbox.commands.run("cat /tmp/count || true").stdout.strip()
        if text:
            return int(text)
        time.sleep(0.05)
    raise AssertionError("the counter never counted")


def test_processes_files_and_variables_go_on_after_a_pause(sandbox_with):
    sandbox = sandbox_with(envs={"A": "1"}, metadata={"m": "x"})
    sandbox.commands.run(COUNTER, background=True)
    before = count(sandbox)
    started = sandbox.get_info().started_at
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    info = Sandbox.get_info(sandbox.sandbox_id)
    assert info.state == SandboxState.PAUSED
    assert info.started_at == started
    assert not sandbox.is_running()

    again = Sandbox.connect(sandbox.sandbox_id, timeout=60)
    assert again.commands.run("echo $A").stdout == "1\n"
    first = count(again)
    assert first >= before
    time.sleep(0.3)
    assert count(again) > first, "the process goes on"
    info = again.get_info()
    assert info.state == SandboxState.RUNNING
    assert info.metadata == {"m": "x"}
    assert info.started_at > started


def test_a_pause_of_the_files_boots_afresh(sandbox_with):
    sandbox = sandbox_with(envs={"A": "1"})
    sandbox.files.write("/home/user/kept", "yes")
    sandbox.commands.run(COUNTER, background=True)
    count(sandbox)
    assert sandbox.pause(keep_memory=False) is True
    sandbox.connect()
    assert sandbox.files.read("/home/user/kept") == "yes"
    assert sandbox.commands.run("echo $A").stdout == "1\n"
    shells = sandbox.commands.run("ps -eo args").stdout
    assert "/tmp/count" not in shells


def test_many_connects_at_once_share_one_resume(sandbox_with):
    sandbox = sandbox_with()
    sandbox.pause()
    with ThreadPoolExecutor(10) as pool:
        connected = list(pool.map(lambda _: Sandbox.connect(sandbox.sandbox_id), range(10)))
    starts = {each.get_info().started_at for each in connected}
    assert len(starts) == 1
    assert connected[0].commands.run("echo hi").stdout == "hi\n"


def test_pausing_again_and_again_leaves_it_usable(sandbox_with):
    sandbox = sandbox_with()
    for number in range(20):
        sandbox.pause(keep_memory=number % 5 != 0)
        sandbox.connect()
    assert sandbox.commands.run("echo hi").stdout == "hi\n"


def test_time_out_pauses_and_traffic_wakes(sandbox_with, api):
    sandbox = sandbox_with(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.commands.run(
        "cd /home/user && echo hello > index.html && python3 -m http.server 8000",
        background=True,
    )
    deadline = time.time() + 20
    while sandbox.commands.run("curl -sf localhost:8000 || true").stdout != "hello\n":
        assert time.time() < deadline
    sandbox.set_timeout(0)
    while Sandbox.get_info(sandbox.sandbox_id).state != SandboxState.PAUSED:
        assert time.time() < deadline
        time.sleep(0.05)
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "8000"}

    def visit(_) -> str:
        with env.client(env.SANDBOX_URL) as client:
            return client.get("/", headers=headers, timeout=60).text

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(visit, range(50)))
    assert answers == ["hello\n"] * 50
    assert Sandbox.get_info(sandbox.sandbox_id).state == SandboxState.RUNNING


def test_a_command_wakes_a_paused_sandbox_that_may_be_woken(sandbox_with):
    sandbox = sandbox_with(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.pause()
    assert sandbox.commands.run("echo hi").stdout == "hi\n"


def test_a_paused_sandbox_that_may_not_be_woken_stays_paused(sandbox_with):
    sandbox = sandbox_with()
    sandbox.pause()
    assert sandbox.is_running() is False
    assert Sandbox.get_info(sandbox.sandbox_id).state == SandboxState.PAUSED
    listed = Sandbox.list(query=SandboxQuery(state=[SandboxState.PAUSED])).next_items()
    assert sandbox.sandbox_id in [each.sandbox_id for each in listed]


def test_snapshots_start_sandboxes_also_after_the_source_ended(sandbox_with, unique):
    source = sandbox_with()
    source.files.write("/home/user/kept", "yes")
    snapshot = source.create_snapshot()
    try:
        assert source.files.read("/home/user/kept") == "yes"
        source.kill()
        child = sandbox_with(template=snapshot.snapshot_id)
        assert child.sandbox_id != source.sandbox_id
        assert child.files.read("/home/user/kept") == "yes"
        listed = Sandbox.list_snapshots(sandbox_id=source.sandbox_id).next_items()
        assert [each.snapshot_id for each in listed] == [snapshot.snapshot_id]
        child.kill()
    finally:
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
    assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False
    with pytest.raises(SandboxException):
        Sandbox.create(template=snapshot.snapshot_id)


def test_forks_have_the_files_and_go_their_own_ways(sandbox_with):
    source = sandbox_with(envs={"A": "1"})
    source.files.write("/home/user/kept", "yes")
    forks = source.fork(count=3)
    copies = [fork.sandbox if hasattr(fork, "sandbox") else fork for fork in forks]
    try:
        ids = {copy.sandbox_id for copy in copies}
        assert len(ids) == 3 and source.sandbox_id not in ids
        for number, copy in enumerate(copies):
            assert copy.files.read("/home/user/kept") == "yes"
            assert copy.commands.run("echo $A").stdout == "1\n"
            assert copy.commands.run("echo $E2B_SANDBOX_ID").stdout == f"{copy.sandbox_id}\n"
            copy.files.write("/home/user/kept", f"mine {number}")
        assert source.files.read("/home/user/kept") == "yes"
        entropy = {copy.commands.run("head -c 16 /dev/urandom | od -An -tx1").stdout for copy in copies}
        assert len(entropy) == 3
    finally:
        for copy in copies:
            copy.kill()


def test_the_asynchronous_client(unique):
    async def run() -> None:
        sandbox = await AsyncSandbox.create(timeout=60)
        try:
            assert await sandbox.pause() is True
            again = await AsyncSandbox.connect(sandbox.sandbox_id)
            assert (await again.commands.run("echo hi")).stdout == "hi\n"
            assert await again.beta_pause() is not None
        finally:
            assert await sandbox.kill() is True

    asyncio.run(run())
