"""The contract of volumes and of their content row by row, on the wire (sections 19 and 20)."""

import base64
import json
import uuid

import httpx
import pytest
from e2b import Sandbox

from support.api import refused
from support.env import API_KEY, API_URL

MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def api():
    with httpx.Client(base_url=API_URL, headers={"X-API-Key": API_KEY}, timeout=60) as client:
        yield client


@pytest.fixture
def made(api):
    answer = api.post("/volumes", json={"name": f"c-{uuid.uuid4().hex[:12]}"})
    assert answer.status_code == 201
    yield answer.json()
    api.delete(f"/volumes/{answer.json()['volumeID']}")


class Content:
    """The content of a volume, by its token alone."""

    def __init__(self, made: dict):
        headers = {"Authorization": f"Bearer {made['token']}"}
        base = f"{API_URL}/volumecontent/{made['volumeID']}"
        self.client = httpx.Client(base_url=base, headers=headers, timeout=60)

    def call(self, method: str, what: str, path: str, body=None, **query) -> httpx.Response:
        content = {"json": body} if isinstance(body, dict) else {"content": body}
        return self.client.request(method, f"/{what}", params={"path": path, **query}, **content)


@pytest.fixture
def content(made):
    content = Content(made)
    yield content
    content.client.close()


def told(answer: httpx.Response, status: int, code: str) -> None:
    """The shape of these errors: the code is a word."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"code", "message"} and body["code"] == code, body
    assert isinstance(body["message"], str) and body["message"]


def test_volumes_of_the_team(api, made):
    assert made.keys() >= {"volumeID", "name", "token"}
    uuid.UUID(made["volumeID"])
    found = api.get(f"/volumes/{made['volumeID']}")
    assert found.status_code == 200
    assert found.json()["token"] != made["token"], "each has a token of its own"
    listed = [one for one in api.get("/volumes").json() if one["volumeID"] == made["volumeID"]]
    assert listed == [{"volumeID": made["volumeID"], "name": made["name"]}], "without tokens"
    for name in ("a b", "", "a/b", "ü", "a.b"):
        refused(api.post("/volumes", json={"name": name}), 400, "Invalid volume name")
    text = f"Volume with name '{made['name']}' already exists"
    refused(api.post("/volumes", json={"name": made["name"]}), 400, text)
    for method in ("GET", "DELETE"):
        refused(api.request(method, "/volumes/nonsense"), 400, "Invalid volume ID")
        refused(api.request(method, f"/volumes/{MISSING}"), 404, "Volume not found")
    assert httpx.get(f"{API_URL}/volumes").status_code == 401


def test_a_token_says_what_it_is_for(made):
    claims = made["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert claims["volid"] == made["volumeID"]
    assert claims.keys() >= {"aud", "exp", "iat", "iss", "jti", "nbf", "sub", "teamid", "voltype"}
    assert claims["exp"] - claims["iat"] >= 24 * 3600, "it outlives any transfer"


def test_entries_and_what_changes_them(content):
    answer = content.call("PUT", "file", "/f", b"text")
    assert answer.status_code == 201
    entry = answer.json()
    assert (entry["name"], entry["path"], entry["type"]) == ("f", "/f", "file")
    assert (entry["size"], entry["mode"], entry["uid"], entry["gid"]) == (4, 0o644, 0, 0)
    changed = content.call("PATCH", "path", "/f", {"uid": 7})
    assert changed.status_code == 200
    assert (changed.json()["uid"], changed.json()["gid"], changed.json()["mode"]) == (7, 0, 0o644)
    changed = content.call("PATCH", "path", "/f", {"mode": 0o600, "gid": 8})
    assert (changed.json()["uid"], changed.json()["gid"], changed.json()["mode"]) == (7, 8, 0o600)
    found = content.call("GET", "path", "f")
    assert found.status_code == 200 and found.json()["path"] == "/f", "paths are made absolute"
    for call in (("GET", None), ("PATCH", {"mode": 1}), ("DELETE", None)):
        told(content.call(call[0], "path", "/none", call[1]), 404, "not_found")
    told(content.call("DELETE", "path", "/"), 404, "not_found")
    assert content.call("DELETE", "path", "/f").status_code == 204
    told(content.call("GET", "path", "/f"), 404, "not_found")


def test_directories(content):
    answer = content.call("POST", "dir", "/d", uid=1000, gid=1001)
    assert answer.status_code == 201
    entry = answer.json()
    assert (entry["type"], entry["mode"]) == ("directory", 0o755)
    assert (entry["uid"], entry["gid"]) == (1000, 1001)
    told(content.call("POST", "dir", "/d"), 409, "conflict")
    assert content.call("POST", "dir", "/d", force="true").status_code == 201
    told(content.call("POST", "dir", "/x/y"), 404, "not_found")
    assert content.call("POST", "dir", "/x/y", force="true", mode=448).json()["mode"] == 0o700
    content.call("PUT", "file", "/d/f", b"")
    told(content.call("POST", "dir", "/d/f/e", force="true"), 409, "conflict")
    listed = content.call("GET", "dir", "/").json()
    assert [one["path"] for one in listed] == ["/d", "/x"]
    deep = content.call("GET", "dir", "/", depth=2).json()
    assert [one["path"] for one in deep] == ["/d", "/d/f", "/x", "/x/y"]
    for path in ("/none", "/d/f"):
        told(content.call("GET", "dir", path), 404, "not_found")
    told(content.call("GET", "dir", "/", depth=0), 400, "bad_request")
    # With everything below it.
    assert content.call("DELETE", "path", "/d").status_code == 204
    told(content.call("GET", "path", "/d/f"), 404, "not_found")


def test_files(content):
    told(content.call("PUT", "file", "/none/f", b"x"), 404, "not_found")
    content.call("POST", "dir", "/d")
    told(content.call("PUT", "file", "/d", b"x"), 409, "conflict")
    told(content.call("PUT", "file", "/d", b"x", force="true"), 409, "conflict")
    # As JavaScript sends it: in chunks, without a length.
    chunks = content.call("PUT", "file", "/d/f", iter([b"one ", b"two"]), mode=416)
    assert chunks.status_code == 201 and chunks.json()["mode"] == 0o640
    read = content.call("GET", "file", "/d/f")
    assert (read.status_code, read.content) == (200, b"one two")
    assert read.headers["content-type"] == "application/octet-stream"
    told(content.call("PUT", "file", "/d/f", b"x"), 409, "conflict")
    assert content.call("PUT", "file", "/d/f", b"", force="true").json()["size"] == 0
    assert content.call("GET", "file", "/d/f").content == b""
    for path in ("/d", "/none", "/../../etc/passwd"):
        told(content.call("GET", "file", path), 404, "not_found")
    told(content.client.get("/file"), 400, "bad_request")


def test_a_token_ends_with_its_volume(api, made, content):
    assert content.call("GET", "path", "/").status_code == 200
    other = {**made, "volumeID": MISSING}
    told(Content(other).call("GET", "path", "/"), 401, "unauthorized")
    assert api.delete(f"/volumes/{made['volumeID']}").status_code == 204
    refused(api.delete(f"/volumes/{made['volumeID']}"), 404, "Volume not found")
    told(content.call("GET", "path", "/"), 401, "unauthorized")


def test_mounts_are_there_again_after_a_resume(api, made, content):
    mounts = [{"name": made["name"], "path": "/mnt/v"}]
    body = {"templateID": "base", "timeout": 120, "volumeMounts": mounts}
    answer = api.post("/v2/sandboxes", json=body)
    assert answer.status_code == 201, answer.text
    sandbox = Sandbox.connect(answer.json()["sandboxID"])
    try:
        for memory in (True, False):
            sandbox.commands.run(f"echo {memory} > /mnt/v/{memory}")
            sandbox.pause(keep_memory=memory)
            assert content.call("GET", "file", f"/{memory}").text == f"{memory}\n"
            content.call("PUT", "file", "/while-away", str(memory).encode(), force="true")
            sandbox.connect(timeout=120)
            assert sandbox.commands.run("cat /mnt/v/while-away").stdout == str(memory)
        [listed] = [
            one
            for one in api.get("/v2/sandboxes").json()
            if one["sandboxID"] == sandbox.sandbox_id
        ]
        assert listed["volumeMounts"] == mounts
        assert api.get(f"/sandboxes/{sandbox.sandbox_id}").json()["volumeMounts"] == mounts
    finally:
        sandbox.kill()
