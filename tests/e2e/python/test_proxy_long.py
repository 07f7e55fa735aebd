"""Connections that live long, and transfers that are large, through the proxy."""

import hashlib
import http.client
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import pytest
from websockets.sync.client import connect as websocket

from support.guest import serve
from support.server import Server

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

PORT = 8080
#: Longer than the ten minutes for which idle connections must live.
IDLE = 640
MEGABYTES = 1024
BLOCK = bytes(range(256)) * 4096
#: What the server may need more during a transfer, in KiB.
ROOM = 64 << 10


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("long"))
    server.start("--warm", "0", "--end-sandboxes")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sandbox(server):
    with server.create(timeout=3600) as sandbox:
        serve(sandbox, PORT)
        yield sandbox


def opened(server, sandbox, **options):
    """A WebSocket to the sandbox by its name, over TLS."""
    host = sandbox.get_host(PORT)
    name = host.rsplit(":", 1)[0]
    trust = ssl.create_default_context(cafile=server.data / "tls/localhost/ca.crt")
    wire = socket.create_connection(("127.0.0.1", server.port), 30)
    wire.settimeout(None)
    return websocket(
        f"wss://{host}/ws", sock=wire, ssl=trust, server_hostname=name, compression=None, **options
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_idle_connections_live_for_more_than_ten_minutes(server, sandbox):
    def command() -> str:
        # The client asks for a sign of life every 50 s.
        return sandbox.commands.run(f"sleep {IDLE}; echo still here", timeout=0).stdout

    with (
        ThreadPoolExecutor(1) as thread,
        opened(server, sandbox, ping_interval=20) as pinged,
        opened(server, sandbox, ping_interval=None) as silent,
    ):
        said = thread.submit(command)
        for peer in (pinged, silent):
            peer.send("before")
            assert peer.recv(timeout=10) == "before"
        time.sleep(IDLE)
        for peer in (pinged, silent):
            peer.send("after")
            assert peer.recv(timeout=10) == "after"
        assert said.result(timeout=120) == "still here\n"


def status(pid: int, name: str) -> int:
    """A figure of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


class Flat:
    """Fails if the server needed much memory meanwhile."""

    def __init__(self, server: Server):
        self.pid = server.process.pid

    def __enter__(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.before = status(self.pid, "VmRSS")

    def __exit__(self, kind, *_):
        if kind is None:
            assert status(self.pid, "VmHWM") < self.before + ROOM


def downloaded_over_http1(server, host: str, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    digest = hashlib.sha256()
    while data := answer.read(1 << 20):
        digest.update(data)
    connection.close()
    return digest.hexdigest()


def downloaded_over_http2(server, host: str, path: str) -> str:
    """The digest of the answer, none of whose frames is empty but perhaps the last."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    peer.initiate_connection()
    peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    peer.increment_flow_control_window(1 << 20)
    head = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]
    peer.send_headers(1, head, end_stream=True)
    digest = hashlib.sha256()
    with socket.create_connection(("127.0.0.1", server.port), 60) as wire:
        wire.sendall(peer.data_to_send())
        while True:
            data = wire.recv(1 << 18)
            assert data, "the connection ended before the answer did"
            for event in peer.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    assert event.data or event.stream_ended, "an empty frame before the end"
                    digest.update(event.data)
                    peer.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.StreamEnded):
                    return digest.hexdigest()
                assert not isinstance(event, h2.events.StreamReset), event
            wire.sendall(peer.data_to_send())


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_gigabyte_in_each_direction(server, sandbox, version):
    host = sandbox.get_host(PORT)
    expected = hashlib.sha256()
    for number in range(MEGABYTES):
        expected.update(bytes([number & 255]) * (1 << 20))
    download = downloaded_over_http2 if version == "HTTP/2" else downloaded_over_http1
    with Flat(server):
        assert download(server, host, f"/big?mb={MEGABYTES}") == expected.hexdigest()

    sent = hashlib.sha256()

    def blocks():
        for _ in range(MEGABYTES):
            sent.update(BLOCK)
            yield BLOCK

    is_http2 = version == "HTTP/2"
    client = httpx.Client(http1=not is_http2, http2=is_http2, trust_env=False, timeout=120)
    with client, Flat(server):
        answer = client.post(server.url, headers={"host": host}, content=blocks())
    assert answer.http_version == version
    assert answer.json()["size"] == MEGABYTES << 20
    assert answer.json()["sha256"] == sent.hexdigest()
