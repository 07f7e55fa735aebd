"""What the server's operator asks and does: why things ended, counters, backup and restore."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from e2b import Sandbox
from e2b.exceptions import SandboxException

from support.env import optional
from support.server import Server, free_port
from support.wait import until

WARREN = os.environ.get("WARREN_BIN")

pytestmark = pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program")


def warren(*words, fails=False):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))}
    done = subprocess.run(
        [WARREN, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def metrics_port():
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory, metrics_port):
    one = Server(tmp_path_factory.mktemp("operate"))
    one.start("--end-sandboxes", "--warm", "0")
    one.stop()
    # The second start prints no key, and counts on a listener of its own.
    one.start("--end-sandboxes", "--warm", "0", "--metrics-listen", f"127.0.0.1:{metrics_port}")
    yield one
    one.stop()


def explained(server, thing):
    return warren("explain", thing, "--data-dir", server.data)


def test_a_killed_sandbox_is_explained_by_who_killed_it(server):
    sandbox = server.create()
    sandbox.commands.run("true")
    assert "runs; it ends at" in explained(server, sandbox.sandbox_id)
    sandbox.kill()
    told = explained(server, sandbox.sandbox_id)
    assert told.startswith(f"Sandbox {sandbox.sandbox_id} was killed at ")
    assert "API key" in told and "(default) asked for that" in told
    assert "sandbox.lifecycle.killed" in told
    assert "DELETE /sandboxes/{sandboxID}" in told


def test_a_sandbox_whose_time_was_up_is_explained(server):
    sandbox = server.create(timeout=1)
    what = "reached its time-out"
    until(lambda: what in explained(server, sandbox.sandbox_id), "its end is explained", 30)
    assert "It was made for 1 s" in explained(server, sandbox.sandbox_id)


def test_a_refused_request_is_explained_by_its_id(server):
    with server.api() as api:
        refused = api.post("/v2/sandboxes", json={"templateID": "no-such-thing"})
    assert refused.status_code == 404
    told = explained(server, refused.headers["x-request-id"])
    assert "was refused at" in told
    assert "404: template 'no-such-thing' not found" in told
    assert "nothing is known" in warren("explain", "x", "--data-dir", server.data, fails=True)


def test_a_team_asks_with_its_own_key_and_learns_of_nothing_else(server):
    sandbox = server.create()
    with server.api() as api:
        refused = api.post("/v2/sandboxes", json={"templateID": "no-such-thing"})
    other = warren("team", "create", "stranger", "--data-dir", server.data).splitlines()[-1]

    def asked(*words, key=server.key, **more):
        return warren(
            "explain", "--with-key", "--api-key", key, "--api-url", server.url, *words, **more
        )

    request = refused.headers["x-request-id"]
    sandbox.kill()
    for thing, told in [
        (sandbox.sandbox_id, "(default) asked for that"),
        (request, "404: template 'no-such-thing' not found"),
    ]:
        assert told in asked(thing)
        assert "nothing is known" in asked(thing, key=other, fails=True)
    # Without an id, what was refused.
    assert "template 'no-such-thing' not found" in asked()
    assert asked(key=other).startswith("Nothing that is remembered was refused")
    assert "template 'no-such-thing' not found" in explained(server, "default")


def test_a_refusal_for_lack_of_room_is_explained(server):
    key = warren(
        "team", "create", "small", "--max-sandboxes", "1", "--data-dir", server.data
    ).splitlines()[-1]
    options = {**server.options, "api_key": key}
    sandbox = Sandbox.create("base", **options)
    try:
        with server.api() as api:
            full = api.post(
                "/v2/sandboxes", json={"templateID": "base"}, headers={"X-API-Key": key}
            )
        assert full.status_code == 429
        told = explained(server, full.headers["x-request-id"])
        assert "with 429: you have reached the maximum number of concurrent" in told
        assert told.splitlines()[0] in explained(server, "small")
        [entry] = json.loads(
            warren("audit", "--refused", "--team", "small", "--json", "--data-dir", server.data)
        )
        assert (entry["status"], entry["origin"]) == (429, "127.0.0.1")
    finally:
        sandbox.kill()


def test_what_is_written_into_volumes_is_in_the_trail(server):
    listed = (Path(__file__).parents[3] / "spec/credentials.txt").read_text().splitlines()
    writes = {
        line.removesuffix(": volume")
        for line in listed
        if line.endswith(": volume") and not line.startswith("GET ")
    }
    with server.api() as api:
        made = api.post("/volumes", json={"name": "trail"})
        assert made.status_code == 201, made.text
        volume, token = made.json()["volumeID"], made.json()["token"]
        keys = json.loads(warren("key", "list", "--json", "--data-dir", server.data))
        headers = {"Authorization": f"Bearer {token}"}
        for where, status, more in [
            ("POST dir /d", 201, {}),
            ("PUT file /d/f", 201, {"content": b"x"}),
            ("PATCH path /d/f", 200, {"json": {"mode": 0o600}}),
            ("DELETE path /d/f", 204, {}),
            ("DELETE path /d/none", 404, {}),
        ]:
            method, kind, path = where.split()
            url = f"/volumecontent/{volume}/{kind}"
            done = api.request(method, url, params={"path": path}, headers=headers, **more)
            assert done.status_code == status, done.text
            request = done.headers["x-request-id"]
            [entry] = json.loads(
                warren("audit", "--request", request, "--json", "--data-dir", server.data)
            )
            assert entry["action"] == f"{method} /volumecontent/{{volumeID}}/{kind}"
            assert (entry["target"], entry["data"]) == (volume, {"path": path})
            assert (entry["actor"], entry["status"]) == ("key", status)
            assert entry["actorID"] in {key["id"] for key in keys}
            assert entry["origin"] == "127.0.0.1"
            assert bool(entry["reason"]) == (status == 404)
            writes.discard(entry["action"])
        assert api.delete(f"/volumes/{volume}").status_code == 204
    assert writes == set()


def test_counters_follow_what_happens(server, metrics_port):
    def counted(name):
        text = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
        assert text.endswith("# EOF\n")
        rows = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)

    made = 'warren_sandbox_creates_total{outcome="made"}'
    before = counted(made)
    with server.create():
        assert counted(made) == before + 1
        assert counted('warren_sandboxes{state="running"}') >= 1
        assert counted("warren_team_sandboxes") >= 1
    assert counted('warren_sandbox_ends_total{reason="killed"}') >= 1
    assert counted("warren_database_bytes") > 0
    assert counted("warren_http_requests_total") > 0
    # Counters are not part of the API.
    with server.api() as api:
        assert api.get("/metrics").status_code == 404


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
def test_a_backup_taken_while_the_server_runs_is_a_server_again(server, tmp_path, name):
    sandbox = server.create()
    extra = json.loads(warren("key", "create", f"of {name}", "--json", "--data-dir", server.data))
    place = tmp_path / name
    # Layers that stand for the real ones, which are large; in the directory there are none.
    stand_ins = tmp_path / "stand-ins"
    for layer in Path(optional("WARREN_LAYERS_DIR") or server.data / "layers").iterdir():
        (stand_ins / layer.name).mkdir(parents=True)
        (stand_ins / layer.name / "file").write_text(layer.name)
    less = ["--no-templates"] if name == "copy" else ["--layers-dir", stand_ins]
    warren("backup", place, "--data-dir", server.data, *less)
    assert place.stat().st_mode & 0o077 == 0
    assert "there already" in warren("backup", place, "--data-dir", server.data, fails=True)
    warren("key", "revoke", extra["id"], "--data-dir", server.data)

    other = Server(tmp_path)
    warren("restore", place, "--data-dir", other.data)
    assert "not empty" in warren("restore", place, "--data-dir", other.data, fails=True)
    if name == "copy.tar":
        [kept, *_] = (other.data / "layers").iterdir()
        assert (kept / "file").read_text() == kept.name
        shutil.rmtree(other.data / "layers")
    try:
        other.start("--end-sandboxes", "--warm", "0")
        # What was known at the moment of the backup is known, and what came later is not.
        options = {**other.options, "api_key": extra["key"]}
        copy = Sandbox.create("base", **options)
        assert copy.commands.run("echo restored").stdout == "restored\n"
        copy.kill()
        with pytest.raises(SandboxException):
            Sandbox.connect(sandbox.sandbox_id, **options)
        assert "machine restarted" in explained(other, sandbox.sandbox_id)
        for secret in ("secrets.key", "admin-token", "api-key"):
            assert (other.data / secret).read_text() == (server.data / secret).read_text()
    finally:
        other.stop()
    assert sandbox.is_running()
    sandbox.kill()
