"""A build in a server that is killed."""

import time

import pytest
from e2b import Template

from support import host
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]


@pytest.fixture
def server(tmp_path):
    """A server that leaves nothing on the host, which is checked at the end."""
    before = host.snapshot()
    server = Server(tmp_path)
    yield server
    server.clear()
    end = time.monotonic() + 20
    while (left := host.left(before, host.snapshot())) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == {}
    assert host.processes_naming(str(tmp_path)) == []


def status(server, build) -> dict:
    with server.api() as api:
        path = f"/templates/{build.template_id}/builds/{build.build_id}/status"
        return api.get(path).json()


def test_a_killed_build_has_failed_and_the_next_goes_on_from_there(server):
    server.start("--warm", "0")
    template = Template().from_base_image().run_cmd("echo kept > kept")
    slow = template.run_cmd("test -e /tmp/never || sleep 300")
    build = Template.build_in_background(slow, "killed", **server.options)
    until(
        lambda: any("[builder 2/2] RUN" in e["message"] for e in status(server, build)["logEntries"]),
        "the second step runs",
        60,
    )
    server.crash()
    server.start("--warm", "0")
    after = status(server, build)
    assert after["status"] == "error"
    assert "the server stopped" in after["reason"]["message"]
    assert after["logEntries"][-1]["message"].startswith("Build failed: ")
    lines = []
    quick = Template().from_base_image().run_cmd("echo kept > kept").run_cmd("cat kept")
    Template.build(
        quick, "killed", on_build_logs=lambda line: lines.append(line.message), **server.options
    )
    assert any(line.startswith("CACHED [builder 1/2] RUN") for line in lines), lines
    assert "[builder 2/2] [stdout]: kept" in lines
