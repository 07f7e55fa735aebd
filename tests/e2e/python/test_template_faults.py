"""Builds whose server is killed, in each of their phases. Afterwards the build has failed, or
waits as it did; no half layer, mount or control group is left; and the next build works.

Every test runs a server of its own, so nothing else may run beside it.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from e2b import Sandbox, Template

from support import host, images
from support.images import Image, Registry, layer
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    """A small system in two layers."""
    maker = Server(tmp_path_factory.mktemp("maker")).start("--warm", "0")
    try:
        with maker.create() as sandbox:
            system = images.packed(sandbox, f"{images.SMALL} {images.PACKAGES}")
    finally:
        maker.clear()
    release = {"etc/os-release": 'ID=debian\nVERSION_ID="13"\n'}
    return Image([system, layer(release, images.MERGED)])


@pytest.fixture(scope="module")
def registry(image):
    registry = Registry(image)
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that leaves nothing on the host, which is checked at the end."""
    before = host.snapshot()
    server = Server(tmp_path_factory.mktemp("faults"))
    yield server
    server.clear()
    end = time.monotonic() + 20
    while (left := host.left(before, host.snapshot())) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == {}
    assert host.processes_naming(str(server.data)) == []


@pytest.fixture
def up(server, registry):
    """Starts the server, to die at a step if one is named."""

    def start(abort_at: str | None = None) -> Server:
        flags = ("--warm", "0", "--slots", "4", "--insecure-registry", registry.address)
        return server.start(*flags, abort_at=abort_at)

    yield start
    if server.process and server.process.poll() is None:
        server.crash()


def request(server: Server, name: str) -> tuple[str, str]:
    with server.api() as api:
        made = api.post("/v3/templates", json={"name": name}).json()
    return made["templateID"], made["buildID"]


def start(server: Server, pair: tuple[str, str], **body) -> None:
    with server.api() as api:
        answer = api.post("/v2/templates/{}/builds/{}".format(*pair), json=body)
        assert answer.status_code == 202, answer.text


def status(server: Server, pair: tuple[str, str]) -> dict:
    with server.api() as api:
        return api.get("/templates/{}/builds/{}/status".format(*pair)).json()


def step(command: str) -> dict:
    return {"type": "RUN", "args": [command]}


def says(server: Server, pair: tuple[str, str], text: str) -> None:
    until(
        lambda: any(text in entry["message"] for entry in status(server, pair)["logEntries"]),
        f"the log says {text!r}",
        60,
        0.02,
    )


def wait_dead(server: Server) -> None:
    assert server.process.wait(60) == -signal.SIGABRT, server.log.read_text()[-2000:]


def layers(server: Server) -> Path:
    return server.data / "layers"


def check_whole(server: Server) -> None:
    """Nothing half made is left, and whatever is on record is there."""
    shared = os.environ.get("WARREN_LAYERS_DIR")
    places = [layers(server), *([Path(shared)] if shared else [])]
    assert [*layers(server).glob(".making-*")] == []
    assert [*(server.data / "builds/drafts").iterdir()] == []
    assert [*(server.data / "builds/archives").rglob("partial-*")] == []
    for record in (server.data / "builds/cache").rglob("*.json"):
        for digest in json.loads(record.read_text())["layers"]:
            assert any((place / digest).is_dir() for place in places), (record, digest)
    assert [*(server.data / "sandboxes").iterdir()] == []
    place = str(server.data / "layers")
    mounts = Path("/proc/mounts").read_text().splitlines()
    assert [line for line in mounts if place in line] == []


def check_goes_on(server: Server, **body) -> list[str]:
    """The same build again is ready, and a sandbox of it works."""
    pair = request(server, "again")
    start(server, pair, **body)
    ended = until(
        lambda: (found := status(server, pair))["status"] in ("ready", "error") and found,
        "the build ends",
        120,
    )
    assert ended["status"] == "ready", ended
    with server.create(template="again") as sandbox:
        assert sandbox.commands.run("id -un").stdout == "user\n"
    return [entry["message"] for entry in ended["logEntries"]]


def check_failed(server: Server, pair: tuple[str, str]) -> None:
    after = status(server, pair)
    assert after["status"] == "error", after
    assert "the server stopped" in after["reason"]["message"]
    assert after["logEntries"][-1]["message"].startswith("Build failed: ")


def source(name: str, registry: Registry) -> dict:
    if name == "image":
        return {"fromImage": f"{registry.address}/small:latest"}
    return {"fromImage": "e2bdev/base"}


STEPS = {"steps": [step("echo one > one"), step("cat one; echo two > two")]}
SERVED = {"startCmd": "sleep 600", "readyCmd": "test -e /etc/hostname"}


@pytest.mark.parametrize(
    "fault, kind",
    [
        ("build.started", "base"),
        ("layer.unpacking", "image"),
        ("layer.synced", "image"),
        ("layer.published", "base"),
        ("record.written", "base"),
        ("build.configured", "base"),
        ("build.finishing", "base"),
    ],
)
def test_a_server_that_dies_between_two_steps(up, registry, fault, kind):
    # Nothing of earlier tests is taken from the cache.
    body = {**source(kind, registry), **STEPS, **SERVED, "force": True}
    server = up(fault)
    pair = request(server, "killed")
    try:
        start(server, pair, **body)
    except Exception:  # noqa: BLE001 - it may die before it has answered
        pass
    wait_dead(server)
    server = up()
    check_failed(server, pair)
    check_whole(server)
    check_goes_on(server, **body)


def test_a_server_that_dies_after_the_end(up, registry):
    server = up("build.finished")
    pair = request(server, "ended")
    # With all steps cached the end may come before the answer.
    with contextlib.suppress(httpx.TransportError):
        start(server, pair, **source("base", registry), **STEPS)
    wait_dead(server)
    server = up()
    assert status(server, pair)["status"] == "ready"
    check_whole(server)
    server.create(template="ended").kill()


def test_a_kill_in_an_upload(up):
    server = up()
    pair = request(server, "uploads")
    content = layer({"dir/file": os.urandom(1 << 20)})
    path = f"/templates/{pair[0]}/files/{hashlib.sha256(content).hexdigest()}"
    with server.api() as api:
        url = api.get(path).json()["url"]
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[: len(content) // 2])
        archives = server.data / "builds/archives"
        until(lambda: [*archives.rglob("partial-*")], "half of it is there", 10, 0.02)
        server.crash()
    server = up("upload.written")
    with server.api() as api:
        place = api.get(path).json()
        assert place["present"] is False
        try:
            api.put(place["url"], content=content)
        except Exception:  # noqa: BLE001 - it dies under it
            pass
    wait_dead(server)
    server = up()
    check_whole(server)
    with server.api() as api:
        place = api.get(path).json()
        assert place["present"] is False
        assert api.put(place["url"], content=content).status_code == 200
        assert api.get(path).json()["present"] is True
    # The build that waited meanwhile can be started.
    assert status(server, pair)["status"] == "waiting"
    copy = {
        "type": "COPY",
        "args": ["dir", "/srv/dir", "", ""],
        "filesHash": hashlib.sha256(content).hexdigest(),
    }
    start(server, pair, fromImage="e2bdev/base", steps=[copy])
    until(lambda: status(server, pair)["status"] == "ready", "the build is ready", 60)


def test_a_kill_in_a_pull(up, registry, monkeypatch):
    # What earlier tests pulled is there already.
    large = layer({"opt/large": os.urandom(4 << 20)})
    monkeypatch.setattr(registry, "image", Image([large, *registry.image.layers]))
    body = {**source("image", registry), **STEPS}
    server = up()
    registry.stalls = images.digest(large)
    pair = request(server, "pulls")
    start(server, pair, **body, force=True)
    made = ".making-*/opt/large"
    until(lambda: [*layers(server).glob(made)], "half a layer is there", 60, 0.02)
    server.crash()
    registry.stalls = None
    server = up()
    check_failed(server, pair)
    check_whole(server)
    check_goes_on(server, **body, force=True)


@pytest.mark.parametrize(
    "phase, text",
    [
        ({"steps": [step("sleep 300")]}, "[builder 1/1] RUN sleep"),
        ({"startCmd": "sleep 300", "readyCmd": "sleep 300"}, "Waiting for template to be ready"),
        ({"startCmd": "sleep 300", "readyCmd": "false"}, "Waiting for template to be ready"),
    ],
    ids=["step", "ready-runs", "ready-waits"],
)
def test_a_kill_while_commands_run(up, registry, phase, text):
    server = up()
    pair = request(server, "runs")
    start(server, pair, fromImage="e2bdev/base", **phase)
    says(server, pair, text)
    server.crash()
    server = up()
    check_failed(server, pair)
    check_whole(server)
    check_goes_on(server, fromImage="e2bdev/base", **STEPS)


def test_a_kill_while_a_layer_is_copied(up):
    server = up()
    write = "mkdir d; for i in $(seq 20); do head -c 5000000 /dev/urandom > d/$i; done"
    body = {"fromImage": "e2bdev/base", "steps": [step(write)]}
    pair = request(server, "copies")
    start(server, pair, **body)
    until(lambda: [*layers(server).glob(".making-*/home/user/d/*")], "it is copied", 60, 0.001)
    server.crash()
    left = [*layers(server).glob(".making-*")]
    assert left, "it was killed too late"
    server = up()
    check_failed(server, pair)
    check_whole(server)
    check_goes_on(server, **body)


def test_a_kill_in_an_export_and_an_import(up, image):
    server = up()
    check_goes_on(server, fromImage="e2bdev/base", **STEPS)
    server.crash()
    server = up("export.writing")
    with server.api() as api:
        try:
            api.get("/templates/again/image", timeout=60)
        except Exception:  # noqa: BLE001 - it dies under it
            pass
    wait_dead(server)
    server = up("layer.unpacking")
    check_whole(server)
    pair = request(server, "imports")
    archive = Image([*image.layers, layer({"opt/own": os.urandom(8)})]).archive()
    hashed = hashlib.sha256(archive).hexdigest()
    with server.api() as api:
        url = api.get(f"/templates/{pair[0]}/files/{hashed}").json()["url"]
        assert api.put(url, content=archive, timeout=60).status_code == 200
    body = {"fromImage": f"oci:{hashed}", **STEPS}
    start(server, pair, **body)
    wait_dead(server)
    server = up()
    check_failed(server, pair)
    check_whole(server)
    check_goes_on(server, **body)


def test_a_kill_while_a_snapshot_becomes_a_layer(up):
    server = up()
    with server.create() as sandbox:
        sandbox.files.write("/home/user/kept", "yes")
        snapshot = sandbox.create_snapshot()
    server.crash()
    server = up("build.snapshot-opened")
    pair = request(server, "from-snapshot")
    body = {"fromTemplate": snapshot.snapshot_id, "steps": [step("cat kept")]}
    start(server, pair, **body)
    wait_dead(server)
    server = up()
    check_failed(server, pair)
    check_whole(server)
    assert "[builder 1/1] [stdout]: yes" in check_goes_on(server, **body)
    assert Sandbox.delete_snapshot(snapshot.snapshot_id, **server.options) is True
