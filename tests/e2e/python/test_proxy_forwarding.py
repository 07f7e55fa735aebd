"""What the proxy forwards: bodies, streams, upgrades, headers, lifetimes."""

import concurrent.futures
import hashlib
import socket

import httpx
import pytest
from e2b import Sandbox
from websockets.sync.client import connect as websocket

from support import env
from support.env import host_of
from support.guest import serve
from support.wait import until

PORT = 8080


@pytest.fixture(scope="module")
def host(sandbox) -> str:
    """The host name of a server inside the module's sandbox."""
    serve(sandbox, PORT)
    return host_of(PORT, sandbox.sandbox_id)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods_paths_and_queries(edge, host, method):
    path = "/a%20b//c/../d?q=%C3%BC&q=2&empty="
    seen = edge.request(method, path, headers={"host": host}).json()
    assert seen["method"] == method and seen["path"].endswith("?q=%C3%BC&q=2&empty=")


def test_head_has_no_body(edge, host):
    answer = edge.head("/", headers={"host": host})
    assert answer.status_code == 200 and answer.content == b""


def test_the_guests_own_502_is_unchanged(edge, host):
    answer = edge.get("/502", headers={"host": host})
    assert answer.status_code == 502 and answer.text == "the guest's own 502"
    assert answer.headers["content-type"] == "text/x-own" and answer.headers["x-own"] == "1"


def test_forwarding_headers_of_the_client_are_dropped(edge, host):
    sent = {
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "forwarded": "for=1.2.3.4",
        "x-custom": "kept",
    }
    seen = dict(edge.get("/", headers={"host": host, **sent}).json()["headers"])
    assert not set(seen) & {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"}
    assert seen["x-custom"] == "kept" and seen["host"] == host


def test_no_encoding_is_added(host):
    with httpx.Client(base_url=env.SANDBOX_URL, trust_env=False) as plain:
        request = plain.build_request("GET", "/", headers={"host": host})
        del request.headers["accept-encoding"]
        seen = dict(plain.send(request).json()["headers"])
    assert "accept-encoding" not in seen


def test_cors_headers_of_the_guest_arrive_once(edge, host):
    answer = edge.get("/cors", headers={"host": host, "origin": "https://a.example"})
    assert answer.headers.get_list("access-control-allow-origin") == ["https://a.example"]


def test_uploads_with_and_without_length(edge, host):
    block = bytes(range(256)) * 4096
    expected = hashlib.sha256(block * 64).hexdigest()
    chunked = edge.post("/", headers={"host": host}, content=(block for _ in range(64))).json()
    sized = edge.post("/", headers={"host": host}, content=block * 64).json()
    assert chunked["sha256"] == sized["sha256"] == expected
    assert chunked["size"] == sized["size"] == 64 << 20


def test_a_large_download(edge, host):
    digest = hashlib.sha256()
    with edge.stream("GET", "/big?mb=64", headers={"host": host}) as answer:
        assert answer.headers["content-length"] == str(64 << 20)
        for chunk in answer.iter_raw():
            digest.update(chunk)
    expected = hashlib.sha256()
    for number in range(64):
        expected.update(bytes([number]) * (1 << 20))
    assert digest.digest() == expected.digest()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_events_are_not_held_back(edge, host, version):
    is_http2 = version == "HTTP/2"
    # The guest emits the next event only when told to, so a buffered one would dead-lock.
    with (
        env.client(env.SANDBOX_URL, http1=not is_http2, http2=is_http2) as client,
        client.stream("GET", "/events", headers={"host": host}) as answer,
    ):
        assert answer.http_version == version
        chunks = answer.iter_raw()
        for number in range(3):
            edge.post("/next", headers={"host": host})
            assert next(chunks) == b"data: %d\n\n" % number


def test_a_client_that_leaves_is_noticed_inside(edge, host):
    with edge.stream("GET", "/hang", headers={"host": host}) as answer:
        assert next(answer.iter_raw()) == b"started"
    until(
        lambda: edge.get("/hung-up", headers={"host": host}).text == "yes",
        "the guest sees its connection closed",
        5,
    )


def test_websockets_flow_both_ways(host):
    url = httpx.URL(env.SANDBOX_URL)
    connection = socket.create_connection((url.host, url.port), 10)
    with websocket(f"ws://{host}/ws", sock=connection, compression=None) as peer:
        for message in ("hello", "x" * 5000, b"\x00\xff"):
            peer.send(message)
            assert peer.recv(timeout=10) == message


def test_expect_100_continue(host):
    url = httpx.URL(env.SANDBOX_URL)
    with socket.create_connection((url.host, url.port), 10) as connection:
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 100")
        connection.sendall(b"body")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert b"HTTP/1.1 200" in received and hashlib.sha256(b"body").hexdigest().encode() in received


def test_two_hundred_requests_at_once(host):
    limits = httpx.Limits(max_connections=200)
    with env.client(env.SANDBOX_URL, limits=limits, timeout=60) as many:

        def one(number: int) -> bool:
            answer = many.get(f"/{number}", headers={"host": host})
            return answer.status_code == 200 and answer.json()["path"] == f"/{number}"

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            assert all(pool.map(one, range(200)))


def test_h2c_with_prior_knowledge(host):
    with httpx.Client(base_url=env.SANDBOX_URL, http1=False, http2=True, trust_env=False) as client:
        answer = client.get("/h2", headers={"host": host})
        assert answer.http_version == "HTTP/2"
        assert answer.json()["path"] == "/h2"


def test_a_kill_resets_open_connections(edge):
    sandbox = Sandbox.create(timeout=60)
    serve(sandbox, PORT)
    with edge.stream("GET", "/hang", headers={"host": host_of(PORT, sandbox.sandbox_id)}) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"started"
        sandbox.kill()
        # A clean end would look like a complete answer.
        with pytest.raises(httpx.TransportError):
            next(chunks)


def test_the_agent_answers_over_keep_alive(envd):
    for _ in range(20):
        assert envd.http.get("/health").status_code == 204
