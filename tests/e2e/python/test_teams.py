"""Teams, people and keys, as the server's operator and its teams use them."""

import json
import os
import re
import subprocess

import httpx
import pytest
from e2b import AuthenticationException, Sandbox
from e2b.exceptions import SandboxException

from support.server import Server

WARREN = os.environ.get("WARREN_BIN")

pytestmark = pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("teams"))
    one.start("--end-sandboxes")
    yield one
    one.stop()


def warren(server, *words, fails=False):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))}
    done = subprocess.run(
        [WARREN, *words, "--data-dir", server.data],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def warren_json(server, *words):
    return json.loads(warren(server, *words, "--json"))


def options(server, key):
    return {"api_key": key, "api_url": server.url, "sandbox_url": server.url}


def test_a_team_has_sandboxes_of_its_own(server):
    made = warren(server, "team", "create", "Blue Team", "--max-sandboxes", "2")
    key = made.splitlines()[-1]
    assert re.fullmatch(r"e2b_[0-9a-f]{40}", key)
    first = server.key_file.read_text().strip()
    blue, ours = options(server, key), options(server, first)
    sandbox = Sandbox.create("base", **blue)
    assert sandbox.commands.run("echo hi").stdout == "hi\n"
    with pytest.raises(Exception, match="not found|doesn't exist"):
        Sandbox.connect(sandbox.sandbox_id, **ours)
    assert not Sandbox.kill(sandbox.sandbox_id, **ours)
    assert sandbox.is_running()
    teams = {team["slug"]: team for team in warren_json(server, "team", "list")}
    assert teams["blue-team"]["sandboxes"] == 1
    assert "1 sandboxes" in warren(server, "team", "delete", "blue-team", fails=True)
    warren(server, "team", "delete", "blue-team", "--force")
    with pytest.raises(AuthenticationException):
        Sandbox.create("base", **blue)


def test_keys_are_listed_masked_and_revoked_at_once(server):
    made = warren_json(server, "key", "create", "ci", "--expires", "30d")
    key, ours = made["key"], options(server, made["key"])
    Sandbox.list(**ours).next_items()
    listed = warren(server, "key", "list")
    assert key[4:] not in listed and key[-4:] in listed
    one = next(k for k in warren_json(server, "key", "list") if k["id"] == made["id"])
    assert one["lastUsed"] and one["expiresAt"] > one["createdAt"]
    warren(server, "key", "rename", made["id"], "deploy")
    assert "deploy" in warren(server, "key", "list")
    warren(server, "key", "revoke", made["id"])
    with pytest.raises(AuthenticationException):
        Sandbox.list(**ours).next_items()
    assert "not found" in warren(server, "key", "revoke", made["id"], fails=True)


def test_a_key_that_reads_changes_nothing_and_learns_no_secret(server):
    full = options(server, server.key_file.read_text().strip())
    key = warren(server, "key", "create", "watch", "--scope", "read").strip()
    reads = options(server, key)
    sandbox = Sandbox.create("base", **full)
    try:
        found = Sandbox.list(**reads).next_items()
        assert sandbox.sandbox_id in [one.sandbox_id for one in found]
        for forbidden in (
            lambda: Sandbox.create("base", **reads),
            lambda: Sandbox.kill(sandbox.sandbox_id, **reads),
            lambda: Sandbox.connect(sandbox.sandbox_id, **reads),
            lambda: Sandbox.set_timeout(sandbox.sandbox_id, 10, **reads),
        ):
            with pytest.raises(SandboxException, match="may only read"):
                forbidden()
        path = f"{server.url}/sandboxes/{sandbox.sandbox_id}"
        shown = httpx.get(path, headers={"X-API-Key": key}).json()
        assert not shown.get("envdAccessToken")
        assert sandbox.commands.run("echo still").stdout == "still\n"
    finally:
        sandbox.kill()


def test_people_get_keys_of_their_teams(server):
    made = warren_json(server, "user", "create", "ada@example.com", "--role", "viewer")
    token = made["accessToken"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    teams = httpx.get(f"{server.url}/teams", headers=headers).json()
    assert [team["isDefault"] for team in teams] == [True]
    Sandbox.list(**options(server, teams[0]["apiKey"])).next_items()
    with pytest.raises(SandboxException, match="may only read"):
        Sandbox.create("base", **options(server, teams[0]["apiKey"]))
    warren(server, "user", "join", "ada@example.com", "default", "--role", "member")
    teams = httpx.get(f"{server.url}/teams", headers=headers).json()
    Sandbox.create("base", **options(server, teams[0]["apiKey"])).kill()
    assert "ada@example.com" in warren(server, "team", "members", "default")
    warren(server, "user", "delete", "ada@example.com")
    assert httpx.get(f"{server.url}/teams", headers=headers).status_code == 401


def test_the_administrator_reaches_the_server_by_its_token(server):
    token = server.data / "admin-token"
    assert token.stat().st_mode & 0o777 == 0o600
    env = {k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))}
    done = subprocess.run(
        [WARREN, "team", "list", "--json", "--admin-url", server.url]
        + ["--admin-token-file", token],
        capture_output=True,
        timeout=60,
        env=env,
    )
    assert any(team["isDefault"] for team in json.loads(done.stdout))
    nodes = httpx.get(f"{server.url}/nodes", headers={"X-Admin-Token": token.read_text().strip()})
    assert nodes.json()[0]["status"] == "ready"
    assert httpx.get(f"{server.url}/nodes", headers={"X-Admin-Token": "x"}).status_code == 401


def test_the_trail_tells_who_killed_a_sandbox(server):
    full = options(server, server.key_file.read_text().strip())
    sandbox = Sandbox.create("base", **full)
    sandbox.kill()
    trail = warren_json(server, "audit", "--target", sandbox.sandbox_id)
    assert [entry["action"] for entry in trail] == [
        "DELETE /sandboxes/{sandboxID}",
        "POST /v2/sandboxes",
    ]
    assert all(entry["actor"] == "key" for entry in trail)
    assert "DELETE /sandboxes/{sandboxID}" in warren(server, "audit", "--since", "1h")


def test_the_commands_work_while_the_server_does_not_run(tmp_path):
    one = Server(tmp_path)
    one.start("--warm", "0")
    first = one.key_file.read_text().strip()
    one.stop()
    assert warren(one, "key", "show-first").strip() == first
    key = warren(one, "team", "create", "offline").splitlines()[-1]
    extra = warren_json(one, "key", "create", "gone")
    warren(one, "key", "revoke", extra["id"])
    one.start("--warm", "0")
    try:
        Sandbox.list(**options(one, key)).next_items()
        with pytest.raises(AuthenticationException):
            Sandbox.list(**options(one, extra["key"])).next_items()
        # The first key is printed at the first start only.
        assert one.log.read_text().count(first) <= 1
    finally:
        one.stop()
