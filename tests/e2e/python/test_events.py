"""Lifecycle events, webhooks, and why sandboxes ended.

Every test runs a server of its own, whose webhooks may lead to this host.
"""

import base64
import hashlib
import hmac
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from e2b import CommandExitException, Sandbox
from e2b.exceptions import SandboxException, SandboxNotFoundException, TimeoutException

from support import host
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

SECRET = "the secret of the tests"
FLAGS = ("--warm", "1", "--slots", "4", "--webhook-private-addresses")
LIFE = ["created", "updated", "paused", "resumed", "checkpointed", "killed"]


class Receiver:
    """Takes what webhooks get."""

    def __init__(self):
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((headers, body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self) -> list[dict]:
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("events")).start(*FLAGS)
    yield server
    server.clear()
    assert host.processes_naming(str(server.data)) == []


def hook(server: Server, url: str, *kinds: str) -> str:
    body = {
        "name": "tests",
        "url": url,
        "events": [f"sandbox.lifecycle.{kind}" for kind in kinds],
        "signatureSecret": SECRET,
    }
    with server.api() as api:
        answer = api.post("/events/webhooks", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]


def get(server: Server, path: str, status: int = 200):
    with server.api() as api:
        answer = api.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()


def test_a_life_is_told_in_order_and_signed(server, receiver):
    hook(server, receiver.url, *LIFE)
    sandbox = server.create(metadata={"who": "me"})
    sandbox.set_timeout(200)
    sandbox.pause()
    sandbox.connect(timeout=60)
    snapshot = sandbox.create_snapshot()
    Sandbox.delete_snapshot(snapshot.snapshot_id, **server.options)
    assert sandbox.kill() is True
    path = f"/events/sandboxes/{sandbox.sandbox_id}?orderAsc=true"
    listed = get(server, path)
    assert [event["type"].rpartition(".")[2] for event in listed] == LIFE
    until(lambda: len(receiver.got) >= len(LIFE), "all are delivered", 30)
    by_id = {event["id"]: event for event in receiver.events()}
    assert [by_id[event["id"]] for event in listed] == listed
    for headers, body in receiver.got:
        plain = hashlib.sha256(SECRET.encode() + body).digest()
        assert headers["e2b-signature"] == base64.b64encode(plain).decode().rstrip("=")
        fields = dict(field.split("=", 1) for field in headers["warren-signature"].split(","))
        signed = fields["t"].encode() + b"." + body
        assert fields["v1"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    data = listed[-1]["eventData"]
    assert data["sandbox_metadata"] == {"who": "me"}
    assert data["reason"] == "killed"
    assert data["execution"]["execution_time"] >= 0
    runs = [event["sandboxExecutionId"] for event in listed]
    assert runs[0] == runs[2] != runs[3] == runs[5]


def test_many_requests_at_once_are_one_resume(server):
    sandbox = server.create(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.pause()
    threads = [
        threading.Thread(target=lambda: sandbox.commands.run("true"), daemon=True)
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    path = f"/events/sandboxes/{sandbox.sandbox_id}?types=sandbox.lifecycle.resumed"
    assert len(get(server, path)) == 1
    assert sandbox.kill() is True


def test_what_was_acknowledged_is_delivered_after_a_crash(server, receiver):
    receiver.status = 500
    webhook = hook(server, receiver.url, "created", "killed")
    sandbox = server.create()
    assert sandbox.kill() is True
    server.crash()
    receiver.got.clear()
    receiver.status = 200
    server.start(*FLAGS)

    def ours() -> list[str]:
        mine = (e for e in receiver.events() if e["sandboxId"] == sandbox.sandbox_id)
        return sorted({event["type"] for event in mine})

    until(lambda: len(ours()) == 2, "both are delivered", 60)
    assert ours() == ["sandbox.lifecycle.created", "sandbox.lifecycle.killed"]

    def history() -> list[dict]:
        return get(server, f"/events/webhooks/{webhook}/deliveries?limit=100")

    until(lambda: {each["status"] for each in history()} == {"delivered"}, "all are written down")
    for each in history():
        assert each["attempts"][-1]["statusCode"] == 200
        assert all(attempt["statusCode"] == 500 for attempt in each["attempts"][:-1])


def gone(server: Server, sandbox: Sandbox) -> dict:
    """The answer that its team gets once it is gone."""
    path = f"/sandboxes/{sandbox.sandbox_id}"

    def probe():
        with server.api() as api:
            answer = api.get(path)
            return answer.status_code == 404 and answer.json()

    return until(probe, "it is gone", 30)


def reason(server: Server, sandbox: Sandbox) -> str:
    path = f"/events/sandboxes/{sandbox.sandbox_id}?types=sandbox.lifecycle.killed"
    [event] = get(server, path)
    return event["eventData"]["reason"]


def last_line(server: Server, sandbox: Sandbox) -> str:
    path = f"/v2/sandboxes/{sandbox.sandbox_id}/logs"
    return get(server, path)["logs"][0]["message"]


def test_ends_that_were_asked_for(server):
    killed, timed_out = server.create(), server.create(timeout=1)
    assert killed.kill() is True
    for sandbox, word in ((killed, "killed"), (timed_out, "timed_out")):
        body = gone(server, sandbox)
        text = f'Sandbox "{sandbox.sandbox_id}" doesn\'t exist or you don\'t have access to it'
        assert body == {"code": 404, "message": text, "error_code": f"sandbox_{word}"}
        assert reason(server, sandbox) == word
        assert last_line(server, sandbox).startswith(f"sandbox ended: {word}")
        with pytest.raises(SandboxNotFoundException):
            sandbox.get_info()
        with pytest.raises(TimeoutException, match="was not found"):
            sandbox.commands.run("true")
        assert sandbox.is_running() is False


def test_a_crash_is_told(server):
    sandbox = server.create()
    record = json.loads((server.data / "sandboxes" / f"{sandbox.sandbox_id}.json").read_text())
    os.kill(record["runtime"]["pid"], 9)
    body = gone(server, sandbox)
    assert body["error_code"] == "sandbox_crashed"
    assert body["message"].endswith("access to it: it crashed: its first process died")
    assert reason(server, sandbox) == "crashed"
    with pytest.raises(SandboxException, match="was not found: it crashed"):
        sandbox.commands.run("true")
    assert sandbox.is_running() is False


def test_a_process_that_ran_out_of_memory_is_in_the_log(server):
    sandbox = server.create()
    with pytest.raises(CommandExitException) as killed:
        sandbox.commands.run("python3 -c 'bytearray(4 << 30)'", timeout=60)
    assert killed.value.error == "signal: killed"

    def told() -> bool:
        path = f"/v2/sandboxes/{sandbox.sandbox_id}/logs?search=out+of+memory"
        lines = get(server, path)["logs"]
        return bool(lines) and "killed 1 process" in lines[0]["message"]

    until(told, "the log tells", 30)
    assert sandbox.commands.run("echo on").stdout == "on\n", "the sandbox itself goes on"
    assert sandbox.kill() is True


def test_an_eviction_is_told(server):
    sandbox = server.create()
    server.stop()
    server.start(*FLAGS, "--end-sandboxes")
    server.stop()
    server.start(*FLAGS)
    body = gone(server, sandbox)
    assert body["error_code"] == "sandbox_evicted"
    assert reason(server, sandbox) == "evicted"
