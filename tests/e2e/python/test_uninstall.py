"""What `warren uninstall` leaves of a server: nothing.

Compares the host before and after, so nothing else may run beside it.
"""

import subprocess
import time
from pathlib import Path

import pytest
from e2b import Volume

from support import host
from support.env import optional
from support.machine import Machine
from support.server import Server

WARREN = optional("WARREN_BIN")

pytestmark = [
    pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program"),
    pytest.mark.alone,
    pytest.mark.timeout(180),
]


def uninstall(*words, fails=False) -> str:
    done = subprocess.run(
        [WARREN, "uninstall", *words],
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def rules() -> set[str]:
    return host.lines("nft", "list", "ruleset") | host.lines("iptables-save")


@pytest.fixture
def server(tmp_path):
    """A server that a test uninstalls."""
    server = Server(tmp_path)
    yield server
    if server.data.exists():
        server.clear()


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_nothing_is_left(server, tmp_path, end):
    before, filters = host.snapshot(), rules()
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    run = Path("/run/warren")
    noted = {path.name for path in run.iterdir()} if run.exists() else set()
    server.start()
    volume = Volume.create("kept", **server.volume_options)
    running = server.create(volume_mounts={"/mnt/kept": volume})
    running.commands.run("echo x > /mnt/kept/x")
    running.commands.run("sleep 4321", background=True, timeout=0)
    paused = server.create()
    paused.pause()
    assert server.stop() == 0 if end == "stopped" else server.crash() is None

    assert "no data directory" in uninstall("--yes", "--data-dir", tmp_path, fails=True)
    assert "give --yes" in uninstall("--data-dir", server.data, fails=True)
    assert server.data.exists()
    told = uninstall("--yes", "--data-dir", server.data)
    assert "Ended all sandboxes" in told and f"Removed {server.data}" in told
    assert not server.data.exists()
    limit = time.monotonic() + 20
    while (left := host.left(before, host.snapshot())) and time.monotonic() < limit:
        time.sleep(0.5)
    assert left == {}
    assert host.processes_naming(str(tmp_path)) == []
    assert rules() - filters == set()
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding
    assert ({path.name for path in run.iterdir()} if run.exists() else set()) <= noted
    assert "is not there" in uninstall("--yes", "--data-dir", server.data)


def test_data_can_be_kept(server):
    server.start("--warm", "0")
    gone = server.create()
    assert "another server uses" in uninstall("--keep-data", "--data-dir", server.data, fails=True)
    assert server.stop() == 0
    uninstall("--keep-data", "--data-dir", server.data)
    server.start("--warm", "0", "--end-sandboxes")
    # The key still counts; the sandbox is known to be gone.
    assert server.listed() == set()
    with server.api() as api:
        assert api.get(f"/sandboxes/{gone.sandbox_id}").status_code == 404
    assert server.stop() == 0


def test_the_trust_in_its_certificates_goes_with_a_server(tmp_path):
    layers = optional("WARREN_LAYERS_DIR")
    one = Machine(tmp_path / "machine", layers=Path(layers) if layers else None)
    try:
        program = "/usr/local/bin/warren"
        one.run("sh", "-c", f"cat > {program} && chmod 755 {program}", stdin=WARREN)
        name = "api.sandboxes.test"
        one.run("sh", "-c", f"echo 127.0.0.1 {name} >> /etc/hosts")
        flags = ["--layers-dir", "/layers"] if layers else []
        one.up(program, "--domain", "sandboxes.test", "--end-sandboxes", *flags)
        one.run(program, "trust", "--data-dir", one.data)
        anchors = "/usr/local/share/ca-certificates"
        assert one.run("ls", anchors) == "warren-sandboxes.test.crt\n"
        trusted = ("sh", "-c", "ls /etc/ssl/certs | grep warren")
        assert one.ran(*trusted)
        assert one.down() == 0
        told = one.run(program, "uninstall", "--yes", "--data-dir", one.data)
        assert "does not trust its certificates any more" in told
        assert one.run("ls", anchors) == ""
        assert not one.ran(*trusted)
    finally:
        if one.server and one.server.poll() is None:
            one.down()
        one.close()
