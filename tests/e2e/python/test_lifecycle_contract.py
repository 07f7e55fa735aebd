"""The contract's checks of pause, connect, snapshots and forks through the official SDK, as
far as test_lifecycle.py does not hold them: both clients, both ways to ask."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from e2b import AsyncSandbox, Sandbox
from e2b.exceptions import SandboxException, SandboxNotFoundException
from e2b.sandbox.sandbox_api import SandboxState

from support.wait import until

MISSING = "i0000000000000000dead"


@pytest.fixture
def sandbox_with():
    """Makes sandboxes and kills them after the test."""
    made = []

    def make(**options) -> Sandbox:
        sandbox = Sandbox.create(**{"timeout": 300, **options})
        made.append(sandbox)
        return sandbox

    yield make
    for sandbox in made:
        sandbox.kill()


def state(sandbox: Sandbox) -> str:
    return Sandbox.get_info(sandbox.sandbox_id).state.value


def test_simultaneous_pauses_are_one_pause(sandbox_with, api):
    sandbox = sandbox_with()
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: Sandbox.pause(sandbox.sandbox_id), range(5)))
    # One that came after the pause was done is told that it was.
    assert True in answers and set(answers) <= {True, False}
    events = api.get(f"/events/sandboxes/{sandbox.sandbox_id}").json()
    assert [event["type"] for event in events].count("sandbox.lifecycle.paused") == 1


def test_a_connect_during_a_pause_ends_running(sandbox_with):
    sandbox = sandbox_with()
    with ThreadPoolExecutor(2) as pool:
        pause = pool.submit(sandbox.pause, keep_memory=False)
        time.sleep(0.02)
        connected = pool.submit(Sandbox.connect, sandbox.sandbox_id).result()
        pause.result()
    if state(sandbox) == "paused":
        # The connect was first, and the pause came after it.
        connected.connect()
    assert connected.commands.run("echo on").stdout == "on\n"


def test_a_kill_during_a_pause_leaves_nothing(sandbox_with, api):
    sandbox = sandbox_with()
    with ThreadPoolExecutor(2) as pool:
        path = f"/sandboxes/{sandbox.sandbox_id}/pause"
        pause = pool.submit(api.post, path, json={"memory": False})
        time.sleep(0.02)
        assert sandbox.kill() is True
        assert pause.result().status_code in (204, 404, 409)
    assert sandbox.kill() is False
    with pytest.raises(SandboxNotFoundException, match="not found"):
        Sandbox.connect(sandbox.sandbox_id)


def test_what_a_resume_keeps_and_what_it_does_not(sandbox_with, api):
    sandbox = sandbox_with(
        metadata={"m": "x"}, envs={"A": "1"}, network={"allow_public_traffic": False}
    )
    path = f"/sandboxes/{sandbox.sandbox_id}"
    before = api.get(path).json()
    sandbox.pause()
    paused = api.get(path).json()
    assert (paused["state"], paused["pauseMode"]) == ("paused", "full")
    again = Sandbox.connect(sandbox.sandbox_id, timeout=100)
    after = api.get(path).json()
    for name in ("templateID", "metadata", "envdAccessToken", "network", "lifecycle", "alias"):
        assert after[name] == before[name], name
    assert after["startedAt"] > before["startedAt"]
    assert again.traffic_access_token == sandbox.traffic_access_token
    assert "pauseMode" not in after


def test_a_reboot_on_resume_keeps_files_only(sandbox_with, api):
    sandbox = sandbox_with(envs={"A": "1"})
    sandbox.files.write("/home/user/kept", "yes")
    sandbox.commands.run("sleep 1000", background=True)
    sandbox.pause()
    answer = api.post(f"/v2/sandboxes/{sandbox.sandbox_id}/connect", json={"memory": False})
    assert answer.status_code == 201, answer.text
    assert sandbox.files.read("/home/user/kept") == "yes"
    assert sandbox.commands.run("echo $A").stdout == "1\n"
    assert "sleep 1000" not in sandbox.commands.run("ps -eo args").stdout
    # No effect on one that runs.
    answer = api.post(f"/v2/sandboxes/{sandbox.sandbox_id}/connect", json={"memory": False})
    assert answer.status_code == 200


def test_connect_moves_the_end_only_away(sandbox_with, api):
    sandbox = sandbox_with()
    end = sandbox.get_info().end_at
    Sandbox.connect(sandbox.sandbox_id, timeout=10)
    assert sandbox.get_info().end_at == end
    Sandbox.connect(sandbox.sandbox_id, timeout=600)
    assert sandbox.get_info().end_at > end
    path = f"/v2/sandboxes/{sandbox.sandbox_id}/connect"
    assert api.post(path).status_code == 200
    refused = api.post(path, json={"timeout": 0})
    assert refused.status_code == 400
    assert refused.json()["message"] == "Timeout must be greater than 0"


def pause_mode(api, sandbox):
    """What a pause has kept. None while it is under way, when it shows as paused already."""
    return api.get(f"/sandboxes/{sandbox.sandbox_id}").json().get("pauseMode")


def test_a_time_out_of_zero_pauses_or_ends(sandbox_with, api):
    kept = sandbox_with(lifecycle={"on_timeout": "pause"})
    gone = sandbox_with()
    for sandbox in (kept, gone):
        sandbox.set_timeout(0)
    until(lambda: pause_mode(api, kept), "the one is paused", 10)
    assert state(kept) == "paused"
    until(lambda: not gone.is_running(), "the other is gone", 10)
    with pytest.raises(SandboxNotFoundException):
        gone.get_info()
    with pytest.raises(SandboxNotFoundException):
        kept.set_timeout(10)


def test_a_time_out_with_files_only(sandbox_with, api):
    sandbox = sandbox_with(lifecycle={"on_timeout": {"action": "pause", "mode": "filesystem"}})
    sandbox.files.write("/home/user/kept", "yes")
    sandbox.set_timeout(0)
    mode = until(lambda: pause_mode(api, sandbox), "it is paused", 10)
    assert (state(sandbox), mode) == ("paused", "filesystem")
    sandbox.connect()
    assert sandbox.files.read("/home/user/kept") == "yes"


def test_what_traffic_may_wake_and_for_how_long(sandbox_with, edge):
    sandbox = sandbox_with(
        timeout=600,
        lifecycle={"on_timeout": "pause", "auto_resume": True},
        network={"allow_public_traffic": False},
    )
    sandbox.pause()

    def visit(port: int, **headers: str) -> httpx.Response:
        route = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}
        return edge.get("/health", headers={**route, **headers})

    for port, headers in (
        (8000, {}),
        (8000, {"e2b-traffic-access-token": "wrong"}),
        (49983, {}),
        (49983, {"X-Access-Token": "wrong"}),
    ):
        refused = visit(port, **headers)
        assert refused.status_code == 403, refused.text
        assert refused.json()["message"].startswith("This sandbox can't be resumed")
    assert state(sandbox) == "paused"
    # Nothing listens there, but the sandbox runs now.
    assert visit(8000, **{"e2b-traffic-access-token": sandbox.traffic_access_token}).status_code == 502
    info = sandbox.get_info()
    assert info.state == SandboxState.RUNNING
    assert 590 <= (info.end_at - info.started_at).total_seconds() <= 610


def test_a_woken_sandbox_lives_five_minutes_at_least(sandbox_with):
    sandbox = sandbox_with(timeout=10, lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.pause()
    assert sandbox.is_running() is True
    info = sandbox.get_info()
    assert 290 <= (info.end_at - info.started_at).total_seconds() <= 310


def test_files_only_are_not_woken_by_traffic(sandbox_with):
    sandbox = sandbox_with(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.pause(keep_memory=False)
    assert sandbox.is_running() is False
    assert state(sandbox) == "paused"


def test_named_snapshots_and_their_filters(sandbox_with, unique):
    name = f"s{unique}"
    source = sandbox_with()
    source.files.write("/home/user/kept", "one")
    first = source.create_snapshot(name=f"{name}:v1")
    try:
        slug = first.snapshot_id.split("/")[0]
        assert first.snapshot_id == f"{slug}/{name}:v1"
        assert first.names == [f"{slug}/{name}"]
        source.files.write("/home/user/kept", "two")
        assert source.create_snapshot(name=f"{name}:v1").snapshot_id == first.snapshot_id
        child = sandbox_with(template=first.snapshot_id)
        assert child.files.read("/home/user/kept") == "two"

        def listed(**query) -> list[str]:
            return [each.snapshot_id for each in Sandbox.list_snapshots(**query).next_items()]

        assert listed(name=name) == [first.snapshot_id]
        assert listed(name=f"{name}:v1") == [first.snapshot_id]
        assert listed(name=f"{name}:default") == []
        assert listed(name=f"nope{unique}") == []
        assert listed(sandbox_id=source.sandbox_id) == [first.snapshot_id]
        child.kill()
    finally:
        assert Sandbox.delete_snapshot(first.snapshot_id) is True
    assert Sandbox.delete_snapshot(first.snapshot_id) is False
    assert source.commands.run("echo on").stdout == "on\n"


def test_processes_of_a_snapshot_go_on_in_new_sandboxes(sandbox_with):
    source = sandbox_with()
    source.commands.run("sleep 1234", background=True)
    snapshot = source.create_snapshot()
    try:
        assert snapshot.snapshot_id.endswith(":default") and snapshot.names == []
        child = sandbox_with(template=snapshot.snapshot_id, metadata={"child": "1"})
        assert "sleep 1234" in child.commands.run("ps -eo args").stdout
        info = child.get_info()
        assert info.metadata == {"child": "1"}
        assert info.template_id == snapshot.snapshot_id.split(":")[0]
        child.kill()
    finally:
        Sandbox.delete_snapshot(snapshot.snapshot_id)


def test_refusals(sandbox_with, api):
    sandbox = sandbox_with()
    for call in (
        lambda: Sandbox.pause(MISSING),
        lambda: Sandbox.connect(MISSING),
        lambda: Sandbox.create_snapshot(MISSING),
        lambda: Sandbox.fork(MISSING),
    ):
        with pytest.raises(SandboxNotFoundException):
            call()
    for count, text in (
        (0, "Count must be at least 1"),
        (101, "Count cannot be greater than 100"),
    ):
        answer = api.post(f"/sandboxes/{sandbox.sandbox_id}/fork", json={"count": count})
        assert (answer.status_code, answer.json()["message"]) == (400, text)
    resume = api.post(f"/sandboxes/{sandbox.sandbox_id}/resume", json={})
    assert resume.status_code == 409
    assert resume.json()["message"] == f"Sandbox {sandbox.sandbox_id} is already running"
    sandbox.pause()
    with pytest.raises(SandboxException, match="is paused and cannot be forked; resume it first"):
        sandbox.fork()
    with pytest.raises(SandboxNotFoundException):
        sandbox.create_snapshot()
    again = api.post(f"/sandboxes/{sandbox.sandbox_id}/pause", json={})
    assert again.status_code == 409
    text = f"Error pausing sandbox - sandbox '{sandbox.sandbox_id}' is already paused"
    assert again.json()["message"] == text
    assert api.post(f"/sandboxes/{sandbox.sandbox_id}/resume").status_code == 201


def test_a_paused_sandbox_can_be_killed(sandbox_with):
    sandbox = sandbox_with()
    sandbox.pause()
    assert sandbox.kill() is True
    assert sandbox.kill() is False
    with pytest.raises(SandboxNotFoundException):
        Sandbox.connect(sandbox.sandbox_id)


def test_the_asynchronous_client_does_the_same(unique):
    async def run() -> None:
        sandbox = await AsyncSandbox.create(timeout=120, envs={"A": "1"})
        try:
            await sandbox.files.write("/home/user/kept", "yes")
            assert await sandbox.pause() is True
            assert await sandbox.pause() is False
            connects = [AsyncSandbox.connect(sandbox.sandbox_id) for _ in range(10)]
            connected = await asyncio.gather(*connects)
            starts = {(await each.get_info()).started_at for each in connected}
            assert len(starts) == 1
            assert await sandbox.pause(keep_memory=False) is True
            await sandbox.connect()
            assert await sandbox.files.read("/home/user/kept") == "yes"
            assert (await sandbox.commands.run("echo $A")).stdout == "1\n"

            snapshot = await sandbox.create_snapshot()
            child = await AsyncSandbox.create(template=snapshot.snapshot_id, timeout=60)
            assert await child.files.read("/home/user/kept") == "yes"
            assert await child.kill() is True
            assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is True
            assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is False

            forks = await sandbox.fork(count=2)
            ids = {fork.sandbox_id for fork in forks}
            assert len(ids) == 2 and sandbox.sandbox_id not in ids
            for fork in forks:
                assert await fork.files.read("/home/user/kept") == "yes"
                assert await fork.kill() is True
        finally:
            assert await sandbox.kill() is True
        with pytest.raises(SandboxNotFoundException):
            await AsyncSandbox.connect(sandbox.sandbox_id)

    asyncio.run(run())
