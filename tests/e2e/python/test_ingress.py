"""Who reaches a port from outside: tokens, masks and signed links, through the SDK."""

import socket

import httpx
import pytest
from e2b import Sandbox
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket

from support import env
from support.env import host_of
from support.guest import serve

PORT = 8080


@pytest.fixture(scope="module")
def private() -> Sandbox:
    network = {"allow_public_traffic": False, "mask_request_host": "localhost:${PORT}"}
    sandbox = Sandbox.create(timeout=300, network=network)
    serve(sandbox, PORT)
    yield sandbox
    sandbox.kill()


def opened(host: str, **headers: str):
    url = httpx.URL(env.SANDBOX_URL)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = socket.create_connection((url.host, url.port), 30)
    return websocket(f"ws://{host}/ws", sock=raw, additional_headers=named)


def test_a_websocket_needs_the_token(private):
    host = host_of(PORT, private.sandbox_id)
    for wrong in ({}, {"e2b_traffic_access_token": "x"}):
        with pytest.raises(InvalidStatus) as refused:
            opened(host, **wrong)
        assert refused.value.response.status_code == 403
    with opened(host, e2b_traffic_access_token=private.traffic_access_token) as answering:
        answering.send("hello")
        assert answering.recv() == "hello"


def test_a_server_that_speaks_tls_inside_is_reached_over_plain_http(edge, create, api):
    made = create({"network": {"httpsPorts": [8443]}})
    sandbox = Sandbox.connect(made["sandboxID"])
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    run = sandbox.commands.run
    run(f"cd /tmp && openssl {make} -keyout k.pem -out c.pem && echo inside >/tmp/page")
    serving = "cd /tmp && exec openssl s_server -accept 8443 -key k.pem -cert c.pem -WWW -quiet"
    run(serving, background=True)
    run("for i in $(seq 100); do curl -kso /dev/null https://localhost:8443/page && exit; sleep .05; done; exit 1")
    answer = edge.get("/page", headers={"host": host_of(8443, sandbox.sandbox_id)})
    assert (answer.status_code, answer.text) == (200, "inside\n")
    detail = api.get(f"/sandboxes/{sandbox.sandbox_id}").json()
    assert detail["network"]["httpsPorts"] == [8443]


def test_a_token_given_twice_is_no_token(edge, private):
    token = private.traffic_access_token
    headers = [
        ("host", host_of(PORT, private.sandbox_id)),
        ("e2b-traffic-access-token", token),
        ("e2b-traffic-access-token", token),
    ]
    assert edge.get("/", headers=headers).status_code == 403


def test_token_and_mask_outlive_a_pause(edge, private):
    token = private.traffic_access_token
    private.pause()
    private.connect()
    assert private.traffic_access_token == token
    assert Sandbox.connect(private.sandbox_id).traffic_access_token == token
    headers = {"host": host_of(PORT, private.sandbox_id), "e2b-traffic-access-token": token}
    seen = dict(edge.get("/", headers=headers).json()["headers"])
    assert seen["host"] == f"localhost:{PORT}"
    assert seen["x-forwarded-host"] == headers["host"]
    assert seen["e2b-traffic-access-token"] == token
    assert edge.get("/", headers={"host": headers["host"]}).status_code == 403


def test_another_sandboxs_token_opens_nothing(edge, private):
    with Sandbox.create(timeout=60, network={"allow_public_traffic": False}) as other:
        assert other.traffic_access_token != private.traffic_access_token
        headers = {
            "host": host_of(PORT, private.sandbox_id),
            "e2b-traffic-access-token": other.traffic_access_token,
        }
        assert edge.get("/", headers=headers).status_code == 403


def test_traffic_is_public_unless_it_is_said_otherwise(create):
    for network in (None, {}, {"allowPublicTraffic": None}, {"allowPublicTraffic": True}):
        made = create({} if network is None else {"network": network})
        assert made.get("trafficAccessToken") is None, network
        assert made["envdAccessToken"], "secured all the same"


def signed(edge, sandbox: Sandbox, url: str, **kwargs) -> httpx.Response:
    """A request to a signed link, by the sandbox's host name as a browser would."""
    link = httpx.URL(url)
    headers = {"host": host_of(49983, sandbox.sandbox_id)}
    return edge.request(kwargs.pop("method", "GET"), link.raw_path.decode(), headers=headers, **kwargs)


def test_signed_links_open_one_file(edge, private):
    private.files.write("hello.txt", "signed")
    down = private.download_url("hello.txt")
    assert signed(edge, private, down).text == "signed"
    timed = private.download_url("hello.txt", use_signature_expiration=60)
    assert signed(edge, private, timed).text == "signed"
    answer = signed(edge, private, down.replace("hello.txt", "other.txt"))
    assert answer.json() == {"code": 401, "message": "invalid signature"}
    assert signed(edge, private, down.split("&signature")[0]).status_code == 401
    late = private.download_url("hello.txt", use_signature_expiration=-10)
    assert signed(edge, private, late).json()["message"] == "signature is already expired"
    # A link to read does not write.
    files = {"file": ("hello.txt", b"changed")}
    assert signed(edge, private, down, method="POST", files=files).status_code == 401
    assert private.files.read("hello.txt") == "signed"


def test_a_signed_upload(edge, private):
    up = private.upload_url("up.txt")
    answer = signed(edge, private, up, method="POST", files={"file": ("up.txt", b"sent")})
    assert answer.status_code == 200, answer.text
    assert private.files.read("up.txt") == "sent"
