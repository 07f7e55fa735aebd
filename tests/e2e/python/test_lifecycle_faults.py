"""Pauses, resumes, snapshots and forks while the server dies, the disk is full or the
machine is gone: afterwards a sandbox is as before or as after, and never stuck.

Every test runs a server of its own, so nothing else may run beside it.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from e2b import Sandbox
from e2b.exceptions import SandboxException

from support import host
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

FLAGS = ("--warm", "0", "--slots", "4", "--pause-to-disk-secs", "0")
# Holds random memory and tells its digest whenever it is asked to.
HOLDER = """
import hashlib, os, time
data = bytearray(os.urandom(32 << 20))
digest = lambda: hashlib.sha256(data).hexdigest()
open("/tmp/first", "w").write(digest())
while True:
    if os.path.exists("/tmp/ask"):
        os.remove("/tmp/ask")
        open("/tmp/said.part", "w").write(f"{digest()} {os.getpid()}")
        os.rename("/tmp/said.part", "/tmp/said")
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that leaves nothing on the host, which is checked at the end."""
    server = Server(tmp_path_factory.mktemp("faults"))
    yield server
    server.clear()
    until(lambda: set(held(server).values()) == {0}, "nothing is left", 20, 0.5)
    assert host.processes_naming(str(server.data)) == []


def held(server: Server) -> dict[str, int]:
    """How much of the host the server has for sandboxes."""
    place = str(server.data)
    loops = host.lines("losetup", "-ln", "-O", "BACK-FILE")
    mounts = Path("/proc/mounts").read_text().splitlines()
    return {
        "loops": sum(place in line for line in loops),
        "mounts": sum(place in line for line in mounts),
        "captures": len([*server.data.rglob("paused-*"), *server.data.rglob("build-*")]),
        "records": len([*(server.data / "sandboxes").iterdir()]),
    }


@pytest.fixture
def running(server):
    """The server, up; afterwards it has no sandboxes."""

    def up(abort_at: str | None = None) -> Server:
        return server.start(*FLAGS, abort_at=abort_at)

    yield up
    if server.process.poll() is not None:
        up()
    for sandbox_id in server.listed():
        Sandbox.kill(sandbox_id, **server.options)
    server.stop()


def hold(sandbox: Sandbox) -> str:
    """Starts the holder and returns the digest of what it holds."""
    sandbox.files.write("/tmp/holder.py", HOLDER)
    sandbox.commands.run("python3 /tmp/holder.py", background=True, timeout=0)
    return until(lambda: read(sandbox, "/tmp/first"), "the first digest", 30)


def read(sandbox: Sandbox, path: str) -> str:
    return sandbox.commands.run(f"cat {path} 2>/dev/null || true").stdout


def said(sandbox: Sandbox) -> str:
    """The digest that the holder says now, and its process."""
    sandbox.commands.run("rm -f /tmp/said; touch /tmp/ask")
    return until(lambda: read(sandbox, "/tmp/said"), "an answer of the holder", 30)


def record(server: Server, sandbox: Sandbox) -> dict:
    """What the node keeps of it."""
    return json.loads((server.data / "sandboxes" / f"{sandbox.sandbox_id}.json").read_text())


def stored(server: Server, sandbox: Sandbox) -> bool:
    """Whether its memory is on the disk only."""
    pause = record(server, sandbox)["pause"]
    return bool(pause) and not pause["frozen"] and pause["stored"]["memory"]


def state(server: Server, sandbox: Sandbox) -> str:
    with server.api() as api:
        return api.get(f"/sandboxes/{sandbox.sandbox_id}").json()["state"]


def wait_dead(server: Server) -> None:
    assert server.process.wait(60) == -signal.SIGABRT, server.log.read_text()[-2000:]


def attempt(act) -> None:
    try:
        act()
    except Exception:  # noqa: BLE001 - the server dies under it
        pass


def check_usable(server: Server, sandbox: Sandbox, digest: str | None) -> None:
    """It runs or can be resumed, with its files and memory, and can be killed."""
    assert server.listed() >= {sandbox.sandbox_id}
    # What is shown is what the node has, whatever was under way.
    kept_pause = record(server, sandbox)["pause"]
    assert state(server, sandbox) == ("paused" if kept_pause else "running")
    again = server.connect(sandbox.sandbox_id)
    assert again.files.read("/home/user/kept") == "yes"
    if digest:
        assert said(again).split()[0] == digest
    # Every further change works as if nothing had been.
    assert again.pause() is True
    assert server.connect(sandbox.sandbox_id).commands.run("echo on").stdout == "on\n"
    assert again.kill() is True
    assert server.listed() == set()


def kept(server: Server) -> Sandbox:
    sandbox = server.create()
    sandbox.files.write("/home/user/kept", "yes")
    return sandbox


@pytest.mark.parametrize("step", ["begun", "frozen", "recorded", "done"])
def test_the_server_dies_while_it_pauses(running, step):
    server = running(abort_at=f"pause.{step}")
    sandbox = kept(server)
    digest = hold(sandbox)
    attempt(lambda: sandbox.pause(retries=0))
    wait_dead(server)
    running()
    check_usable(server, sandbox, digest)


@pytest.mark.parametrize("step", ["captured", "recorded"])
def test_the_server_dies_while_it_pauses_files(running, step):
    server = running(abort_at=f"pause.{step}")
    sandbox = kept(server)
    attempt(lambda: sandbox.pause(keep_memory=False, retries=0))
    wait_dead(server)
    running()
    check_usable(server, sandbox, None)


@pytest.mark.parametrize("step", ["captured", "recorded", "released"])
def test_the_server_dies_while_it_stores_memory(running, step):
    server = running(abort_at=f"store.{step}")
    sandbox = kept(server)
    digest = hold(sandbox)
    sandbox.pause()
    wait_dead(server)
    running()
    assert state(server, sandbox) == "paused"
    check_usable(server, sandbox, digest)


@pytest.mark.parametrize("step", ["thawed", "recorded", "done"])
def test_the_server_dies_while_it_thaws(running, step):
    server = running(abort_at=f"resume.{step}")
    sandbox = kept(server)
    digest = hold(sandbox)
    sandbox.pause()
    attempt(lambda: sandbox.connect(retries=0))
    wait_dead(server)
    running()
    check_usable(server, sandbox, digest)


@pytest.mark.parametrize("step", ["restored", "greeted", "recorded", "done"])
def test_the_server_dies_while_it_restores(running, step):
    server = running(abort_at=f"resume.{step}")
    sandbox = kept(server)
    digest = hold(sandbox)
    sandbox.pause()
    until(lambda: stored(server, sandbox), "the memory is on the disk", 30)
    attempt(lambda: sandbox.connect(retries=0))
    wait_dead(server)
    running()
    check_usable(server, sandbox, digest)


@pytest.mark.parametrize(
    "step",
    [
        "capture.frozen",
        "capture.taken",
        "capture.described",
        "snapshot.captured",
        "snapshot.recorded",
    ],
)
def test_the_server_dies_while_it_makes_a_snapshot(running, step):
    server = running(abort_at=step)
    sandbox = kept(server)
    digest = hold(sandbox)
    attempt(lambda: sandbox.create_snapshot(retries=0))
    wait_dead(server)
    running()
    # There is one that works, or there is none.
    made = Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id, **server.options).next_items()
    assert len(made) == (1 if step == "snapshot.recorded" else 0)
    for snapshot in made:
        child = server.create(template=snapshot.snapshot_id)
        assert child.files.read("/home/user/kept") == "yes"
        assert child.kill() is True
        assert Sandbox.delete_snapshot(snapshot.snapshot_id, **server.options) is True
    assert list((server.data / "snapshots").glob("*")) == []
    check_usable(server, sandbox, digest)


@pytest.mark.parametrize("step", ["captured", "started", "copied"])
def test_the_server_dies_while_it_forks(running, step):
    server = running(abort_at=f"fork.{step}")
    sandbox = kept(server)
    digest = hold(sandbox)
    attempt(lambda: sandbox.fork(count=2, retries=0))
    wait_dead(server)
    running()
    # Copies that nobody was told of are either usable or gone.
    for sandbox_id in server.listed() - {sandbox.sandbox_id}:
        copy = server.connect(sandbox_id)
        assert copy.files.read("/home/user/kept") == "yes"
        assert copy.kill() is True
    assert list((server.data / "snapshots").glob("*")) == []
    check_usable(server, sandbox, digest)


def test_memory_is_the_same_after_a_restore_and_in_forks(running):
    server = running()
    sandbox = kept(server)
    digest = hold(sandbox)
    first = said(sandbox)
    sandbox.pause()
    until(lambda: stored(server, sandbox), "the memory is on the disk", 30)
    server.crash()
    running()
    sandbox = server.connect(sandbox.sandbox_id)
    assert said(sandbox) == first and first.split()[0] == digest

    copies = [fork if isinstance(fork, Sandbox) else fork.sandbox for fork in sandbox.fork(count=2)]
    assert {said(copy) for copy in copies} == {first}
    everyone = [sandbox, *copies]

    def each(command: str) -> set[str]:
        return {one.commands.run(command).stdout for one in everyone}

    for what in (
        "head -c 16 /dev/urandom | od -An -tx1",
        "python3 -c 'import secrets; print(secrets.token_hex())'",
        "echo $E2B_SANDBOX_ID",
        "hostname -I",
    ):
        assert len(each(what)) == 3, what
    assert {abs(float(now) - time.time()) < 5 for now in each("date +%s.%N")} == {True}
    with server.api() as api:
        details = [api.get(f"/sandboxes/{one.sandbox_id}").json() for one in everyone]
    assert len({detail["envdAccessToken"] for detail in details}) == 3


def test_a_paused_sandbox_comes_back_on_a_machine_that_was_restarted(server, tmp_path):
    """All processes and mounts of the first server are gone, as after a power failure."""
    first = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    server.start(*FLAGS, within=first)
    sandbox = kept(server)
    digest = hold(sandbox)
    before = said(sandbox)
    other = kept(server)
    sandbox.pause()
    until(lambda: stored(server, sandbox), "the memory is on the disk", 30)
    server.crash()
    server.start(*FLAGS)
    try:
        assert server.listed() == {sandbox.sandbox_id}
        again = server.connect(sandbox.sandbox_id)
        assert said(again) == before and before.split()[0] == digest
        with server.api() as api:
            gone = api.get(f"/sandboxes/{other.sandbox_id}")
            assert gone.status_code == 404
            assert gone.json()["error_code"] in ("sandbox_crashed", "sandbox_host_restarted")
            logs = api.get(f"/v2/sandboxes/{other.sandbox_id}/logs").json()["logs"]
            assert any("sandbox ended" in line["message"] for line in logs)
        assert again.kill() is True
    finally:
        server.stop()


def test_a_full_disk_leaves_the_sandbox_running_and_says_why(tmp_path):
    image, place = tmp_path / "disk.img", tmp_path / "place"
    place.mkdir()
    subprocess.run(["truncate", "-s", "2G", image], check=True)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    server = Server(place)
    server.log = tmp_path / "server.log"
    try:
        server.start("--warm", "0", "--slots", "4")
        sandbox = kept(server)
        digest = hold(sandbox)
        free = os.statvfs(place)
        subprocess.run(
            ["fallocate", "-l", str(free.f_bavail * free.f_frsize), place / "ballast"], check=False
        )
        with (place / "rest").open("wb", buffering=0) as rest:
            try:
                while True:
                    rest.write(bytes(4096))
            except OSError:
                pass
        for options in ({"keep_memory": False}, {}):
            with pytest.raises(SandboxException, match="disk is full; it is still running"):
                sandbox.pause(retries=0, **options)
            assert state(server, sandbox) == "running"
            assert said(sandbox).split()[0] == digest
        (place / "ballast").unlink()
        (place / "rest").unlink()
        assert sandbox.pause() is True
        assert said(server.connect(sandbox.sandbox_id)).split()[0] == digest
    finally:
        for name in ("ballast", "rest"):
            (place / name).unlink(missing_ok=True)
        server.clear()
        until(
            lambda: subprocess.run(["umount", place]).returncode == 0, "the disk is let go", 20, 0.5
        )


def test_a_hundred_cycles_leave_nothing(running):
    server = running()

    def counts() -> dict[str, int]:
        pid = server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        descriptors = os.listdir(f"/proc/{pid}/fd")
        return {**held(server), "descriptors": len(descriptors), "children": len(children)}

    def settled() -> dict[str, int]:
        before = counts()
        time.sleep(1)
        return before if before == counts() else {}

    sandbox = kept(server)
    digest = hold(sandbox)

    def cycles(count: int) -> None:
        for _ in range(count):
            assert sandbox.pause() is True
            sandbox.connect()

    cycles(5)
    full = until(settled, "the host is steady", 30, 0.5)
    cycles(95)
    again = until(settled, "the host is steady again", 30, 0.5)
    grown = {kind: again[kind] - full[kind] for kind in full if again[kind] > full[kind]}
    # A pool may hold a slot, disk or connection more than at the first look, and a sandbox
    # that is dialled often has up to 16 sockets made ahead.
    most = {"descriptors": 5 + 16}
    assert all(more <= most.get(kind, 5) for kind, more in grown.items()), grown
    assert said(sandbox).split()[0] == digest
