"""Root inside a sandbox uses up what it can. Limits hold, the host goes on.

Every bomb has a bound of its own, so that a missing limit fails the test and not the
machine.
"""

import uuid

import pytest
from e2b import Sandbox, SandboxException

from support import host
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def _the_host_goes_on(api):
    yield
    assert api.get("/health").is_success
    with Sandbox.create(timeout=30) as fresh:
        assert fresh.commands.run("echo fresh").stdout == "fresh\n"


@pytest.fixture(scope="module")
def neighbour():
    """A sandbox that must not notice."""
    sandbox = Sandbox.create(timeout=600)
    yield sandbox
    sandbox.kill()


def explode(sandbox: Sandbox, code: str, timeout: float = 60) -> str:
    """Runs a bomb as root and returns what it said before it went off."""
    sandbox.files.write("/tmp/bomb.py", code)
    said: list[str] = []
    try:
        sandbox.commands.run(
            "python3 -u /tmp/bomb.py", user="root", timeout=timeout, on_stdout=said.append
        )
    except SandboxException:
        # Its process or its whole sandbox was ended, which is a limit that held.
        said.append("ended")
    return "".join(said)


def survives_or_is_ended(sandbox: Sandbox, api) -> None:
    """The sandbox works on, or the API says that it is over; nothing in between."""

    def settled() -> bool:
        if api.get(f"/sandboxes/{sandbox.sandbox_id}").status_code == 404:
            return True
        try:
            return sandbox.commands.run("echo on", timeout=5).stdout == "on\n"
        except SandboxException:
            return False

    until(settled, "the sandbox works or is reported ended", 30, 0.5)


def test_a_fork_bomb_meets_the_process_limit(own_sandbox, neighbour):
    mark = f"7{uuid.uuid4().int % 10**8}"
    said = explode(
        own_sandbox,
        f"""
import os, signal, sys
BOUND = 12000
for number in range(BOUND):
    try:
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "{mark}"])
    except OSError as error:
        print("LIMIT", number, error.errno); break
else:
    print("NO LIMIT")
sys.stdout.flush()
""",
    )
    assert "NO LIMIT" not in said and ("LIMIT" in said or "ended" in said), said
    assert neighbour.commands.run("echo calm", timeout=20).stdout == "calm\n"
    assert own_sandbox.kill() is True
    until(lambda: not host.processes_naming(mark), "no process is left on the host", 20)


def test_a_memory_bomb_is_stopped_at_the_limit(own_sandbox, neighbour, api):
    limit = api.get(f"/sandboxes/{own_sandbox.sandbox_id}").json()["memoryMB"]
    said = explode(
        own_sandbox,
        f"""
held = []
for number in range({limit} * 2 // 16):
    held.append(bytearray(b"x") * (16 << 20))
print("NO LIMIT")
""",
    )
    assert "NO LIMIT" not in said and "ended" in said, said
    assert neighbour.commands.run("echo calm", timeout=20).stdout == "calm\n"
    survives_or_is_ended(own_sandbox, api)


def test_memory_behind_files_counts_too(own_sandbox, api):
    limit = api.get(f"/sandboxes/{own_sandbox.sandbox_id}").json()["memoryMB"]
    said = explode(
        own_sandbox,
        f"""
import glob
written = 0
try:
    for number in range({limit} * 2):
        with open("/dev/shm/bomb", "ab") as file:
            written += file.write(b"x" * (1 << 20))
    print("NO LIMIT")
except OSError as error:
    print("LIMIT", written, error.errno)
""",
    )
    assert "NO LIMIT" not in said and ("LIMIT" in said or "ended" in said), said
    survives_or_is_ended(own_sandbox, api)


def test_file_descriptors_end(own_sandbox, neighbour):
    said = explode(
        own_sandbox,
        """
import os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
try:
    for number in range(2_000_000):
        os.open("/dev/null", os.O_RDONLY)
    print("NO LIMIT")
except OSError as error:
    print("LIMIT", number, error.errno)
""",
    )
    assert "NO LIMIT" not in said and ("LIMIT" in said or "ended" in said), said
    assert neighbour.commands.run("echo calm").stdout == "calm\n"


def test_the_disk_ends(own_sandbox, neighbour, api):
    size = api.get(f"/sandboxes/{own_sandbox.sandbox_id}").json()["diskSizeMB"]
    said = explode(
        own_sandbox,
        f"""
import errno, os
bound = {size} * 2
taken = 0
try:
    for number in range(bound // 64):
        with open(f"/home/user/fill-{{number}}", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 64 << 20)
        taken += 64
    print("NO LIMIT")
except OSError as error:
    print("LIMIT", taken, errno.errorcode[error.errno])
""",
    )
    assert "NO LIMIT" not in said and said.split()[::2] == ["LIMIT", "ENOSPC"], said
    assert int(said.split()[1]) <= size
    assert neighbour.commands.run("echo room > /tmp/room && cat /tmp/room").stdout == "room\n"
    with pytest.raises(SandboxException):
        own_sandbox.commands.run("fallocate -l 100T /home/user/huge", user="root")


def test_inodes_end_or_are_plenty(own_sandbox, neighbour):
    said = explode(
        own_sandbox,
        """
import os
os.mkdir("/tmp/many")
try:
    for number in range(100_000):
        os.close(os.open(f"/tmp/many/{number}", os.O_CREAT | os.O_WRONLY))
    print("PLENTY")
except OSError as error:
    print("LIMIT", error.errno)
""",
    )
    assert "PLENTY" in said or "LIMIT" in said, said
    assert neighbour.commands.run("touch /tmp/one && echo calm").stdout == "calm\n"


def test_a_flood_of_output_is_not_kept(own_sandbox, neighbour):
    """A command that never stops printing to nobody costs nobody else anything."""
    handle = own_sandbox.commands.run("yes flood", background=True, timeout=0)
    handle.disconnect()
    for _ in range(3):
        assert neighbour.commands.run("echo calm", timeout=20).stdout == "calm\n"
    assert own_sandbox.commands.run("echo mine", timeout=20).stdout == "mine\n"
    assert own_sandbox.commands.kill(handle.pid) is True


def test_a_flood_of_connections_is_survived(own_sandbox, neighbour):
    said = explode(
        own_sandbox,
        """
import socket
held = []
try:
    for number in range(3000):
        held.append(socket.create_connection(("127.0.0.1", 49983), 5))
except OSError as error:
    pass
print("HELD", len(held))
""",
    )
    assert "HELD" in said, said
    assert own_sandbox.commands.run("echo on", timeout=20).stdout == "on\n"
    assert neighbour.commands.run("echo calm").stdout == "calm\n"


def test_spinning_leaves_the_cpu_to_others(own_sandbox, neighbour):
    own_sandbox.commands.run(
        "for i in $(seq 64); do (timeout 20 sh -c 'while :; do :; done' &) ; done", user="root"
    )
    for number in range(5):
        result = neighbour.commands.run(f"echo {number}", timeout=20)
        assert result.stdout == f"{number}\n"
    assert own_sandbox.kill() is True
