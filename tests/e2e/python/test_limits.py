"""Budgets, rates and sizes: what is refused, how, and that the rest goes on."""

import json
import os
import socket
import subprocess
import time

import httpx
import pytest
from e2b import RateLimitException

from support import env
from support.api import refused
from support.env import host_of
from support.guest import serve
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

FLAGS = (
    "--max-sandboxes=3",
    "--key-max-memory-mib=2048",
    "--team-requests-per-minute=2000",
    "--rate-limit=GET /sandboxes/{sandboxID}/metrics=2/60",
    "--sandbox-connections=2",
    "--header-timeout-secs=3",
    "--slots=4",
    "--warm=1",
)


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("limits"))
    server.start(*FLAGS, "--end-sandboxes")
    yield server
    server.stop()


@pytest.fixture
def limited_api(limited):
    with limited.api() as api:
        yield api


def refusal(make) -> str:
    """The SDK's error, which must come without retries that wait in vain."""
    begun = time.monotonic()
    with pytest.raises(RateLimitException) as error:
        make()
    # The SDK's first waits together are longer than this.
    assert time.monotonic() - begun < 20
    return str(error.value)


def test_the_memory_of_a_key_is_bounded_and_comes_back(limited, limited_api):
    with limited.create() as first, limited.create():
        assert "2048 MiB of memory" in refusal(limited.create)
        used = limited_api.get("/limits").json()
        assert used["key"]["used"]["memoryMB"] == 2048
        assert used["team"]["used"]["sandboxes"] == 2
        assert first.pause()
        with limited.create():
            assert "2048 MiB of memory" in refusal(lambda: limited.connect(first.sandbox_id))
        assert limited.connect(first.sandbox_id).commands.run("echo ok").stdout == "ok\n"
    until(lambda: limited_api.get("/limits").json()["team"]["used"]["sandboxes"] == 0, "all is free")


def test_the_third_call_of_a_limited_route(limited_api):
    answers = [limited_api.get("/sandboxes/i0000000000000000dead/metrics") for _ in range(3)]
    for left, answer in zip(["1", "0"], answers, strict=False):
        assert answer.headers["ratelimit-limit"] == "2"
        assert answer.headers["ratelimit-remaining"] == left
        assert int(answer.headers["ratelimit-reset"]) >= 1
    refused(answers[2], 429, "Rate limit exceeded")
    assert int(answers[2].headers["retry-after"]) >= 1
    # Other routes are under the team's rate only.
    assert limited_api.get("/v2/sandboxes").headers["ratelimit-limit"] == "2000"


def test_connections_of_a_sandbox_are_bounded(limited):
    with limited.create() as sandbox:
        serve(sandbox, 8080)
        host = host_of(8080, sandbox.sandbox_id)
        where = httpx.URL(limited.url)

        def tunnel() -> socket.socket | None:
            """A connection that switched to WebSocket, unless there is no place."""
            opened = socket.create_connection((where.host, where.port), 30)
            opened.sendall(
                f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n\r\n".encode()
            )
            if opened.recv(12) == b"HTTP/1.1 101":
                return opened
            opened.close()
            return None

        def get():
            return httpx.get(limited.url, headers={"host": host}, trust_env=False)

        # A stream of the agent that is not closed yet counts, too.
        first = until(tunnel, "there is a place")
        second = until(tunnel, "there is another")
        answer = get()
        assert answer.status_code == 429
        assert answer.json() == {
            "sandboxId": sandbox.sandbox_id,
            "message": "The sandbox has too many concurrent incoming connections (limit: 2)",
            "code": 429,
            "connectionLimit": 2,
        }
        assert int(answer.headers["retry-after"]) >= 1
        assert tunnel() is None
        first.close()
        second.close()
        until(lambda: get().status_code == 200, "the place is free again")


def raw(server_url: str, request: bytes) -> bytes:
    url = httpx.URL(server_url)
    with socket.create_connection((url.host, url.port), 30) as client:
        client.sendall(request)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize("path", ["/v2/sandboxes", "/"])
def test_heads_beyond_reason_are_431(limited, path):
    head = f"GET {path} HTTP/1.1\r\nHost: {host_of(80, 'i0')}\r\nX-Large: ".encode()
    answer = raw(limited.url, head + b"x" * 100_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_body_beyond_reason_is_413(limited_api):
    answer = limited_api.post("/v2/sandboxes", content=b" " * (16 * 1024 * 1024 + 1))
    refused(answer, 413)


def test_a_slow_head_is_told_and_cut_off_and_others_are_served(limited):
    url = httpx.URL(limited.url)
    slow = [socket.create_connection((url.host, url.port), 60) for _ in range(50)]
    for client in slow:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    assert httpx.get(f"{limited.url}/health", trust_env=False).is_success
    for client in slow:
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 408 ")
        client.close()


def test_limits_are_shown(limited):
    program = env.optional("WARREN_BIN")
    environment = {**os.environ, "E2B_API_URL": limited.url, "E2B_API_KEY": limited.key}
    environment.pop("E2B_DOMAIN", None)
    shown = subprocess.run(
        [program, "limits", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    shown = json.loads(shown.stdout)
    assert shown["team"]["limits"]["sandboxes"] == 3
    assert shown["key"]["limits"]["memoryMB"] == 2048
    table = subprocess.run(
        [program, "limits"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "2048 (default)" in table


def operator(server: Server, *words: str) -> dict:
    """What a command of the operator says, with nothing but the data directory."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))}
    command = [server.binary, "limits", *words, "--data-dir", server.data, "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_operator_sets_limits_whether_the_server_runs_or_not(tmp_path):
    server = Server(tmp_path)
    server.start("--end-sandboxes", "--warm", "0", "--max-sandboxes", "5")
    try:
        # By the socket in the data directory; it counts at once.
        assert operator(server, "get")["limits"]["sandboxes"] == 5
        assert operator(server, "set", "--sandboxes", "1")["own"]["sandboxes"] == 1
        with server.create(), pytest.raises(RateLimitException, match=r"\(1\)"):
            server.create()
        server.stop()
        # By the database; what was set before stays.
        set_now = operator(server, "set", "--memory-mib", "4096")["own"]
        assert (set_now["sandboxes"], set_now["memoryMB"]) == (1, 4096)
        server.start("--end-sandboxes", "--warm", "0")
        own = operator(server, "get")["own"]
        assert (own["sandboxes"], own["memoryMB"]) == (1, 4096)
        assert operator(server, "set", "--sandboxes", "default")["own"]["sandboxes"] is None
        with server.api() as api:
            headers = {"X-Admin-Token": (server.data / "admin-token").read_text().strip()}
            told = api.get("/admin/audit", params={"action": "team.limits"}, headers=headers)
        assert [entry["actor"] for entry in told.json()] == ["local"] * 3
        assert told.json()[1]["data"]["memoryMB"] == 4096
    finally:
        server.stop()
