"""What a template's start command sets up is captured when the template is built, restored for
each of its sandboxes, kept over restarts, and gone with the template.

Every test runs a server of its own, so nothing else may run beside it.
"""

import signal

import pytest
from e2b import Sandbox, Template

from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]

FLAGS = ("--warm", "0", "--slots", "2")
# Takes longer than a start that is not worth a capture, and is different each time.
START = "sleep 1; cat /proc/sys/kernel/random/uuid > /tmp/once; exec sleep infinity"
READY = "test -s /tmp/once"


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.clear()


def build(server: Server) -> None:
    template = Template().from_template("base").set_start_cmd(START, READY)
    Template.build(template, "once", **server.options)


def captures(server: Server) -> list[str]:
    """Ready states on the disk, whole ones."""
    manifests = server.data.rglob("ready-*/manifest.json")
    return sorted(manifest.parent.name for manifest in manifests)


def noted(server: Server) -> list[str]:
    return sorted(note.name for note in (server.data / "snapshots").glob("*.ready"))


def once(server: Server) -> str:
    """What the start command wrote, as a new sandbox of the template has it."""
    sandbox = server.create(template="once")
    try:
        assert sandbox.commands.run("pgrep -f 'sleep [i]nfinity'").stdout.strip()
        return sandbox.commands.run("cat /tmp/once").stdout
    finally:
        sandbox.kill()


def test_a_build_is_captured_for_all_its_sandboxes(server):
    server.start(*FLAGS)
    build(server)
    until(lambda: noted(server), "the ready state is captured", 60, 0.2)
    assert len(captures(server)) == 1
    first = once(server)
    assert first == once(server)
    # It is no matter of one process.
    server.crash()
    server.start(*FLAGS)
    assert once(server) == first
    assert len(captures(server)) == 1
    # It goes with the template.
    assert Template.exists("once", **server.options)
    with server.api() as api:
        assert api.delete("/templates/once").status_code == 204
    assert captures(server) == [] and noted(server) == []


def test_captures_can_be_turned_off(server):
    server.start(*FLAGS, "--no-ready-captures")
    build(server)
    assert once(server) != once(server)
    assert captures(server) == []


@pytest.mark.parametrize("step", ["ready.captured", "ready.noted"])
def test_the_server_dies_while_it_captures(server, step):
    server.start(*FLAGS, abort_at=step)
    try:
        build(server)
    except Exception:  # noqa: BLE001 - the server may die before the client has asked again
        pass
    assert server.process.wait(60) == -signal.SIGABRT
    server.start(*FLAGS)
    # Whole or not there at all, and the template works either way.
    assert len(captures(server)) == len(noted(server)) == (step == "ready.noted")
    first, second = once(server), once(server)
    assert (first == second) == (step == "ready.noted")
    for sandbox_id in server.listed():
        Sandbox.kill(sandbox_id, **server.options)
