"""How the proxy finds a sandbox, and what it answers by itself."""

import socket

import httpx
import pytest
from e2b import Sandbox

from support import env
from support.api import refused
from support.env import BROWSER, host_of
from support.guest import serve
from support.wait import until

DEAD = "i0000000000000000dead"
PORT = 3000


@pytest.fixture(scope="module")
def served(sandbox) -> Sandbox:
    """The module's sandbox with a server on port 3000."""
    serve(sandbox, PORT)
    return sandbox


def via(edge, host: str, path: str = "/", method: str = "GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return edge.request(method, path, headers={"host": host, **headers})


def text(answer: httpx.Response, status: int, message: str) -> None:
    """A refusal of a request that names no sandbox properly."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == message + "\n"


def proxy_json(answer: httpx.Response, body: dict) -> None:
    assert answer.status_code == body["code"], (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json() == body


def not_found(sandbox_id: str) -> dict:
    return {"sandboxId": sandbox_id, "message": "The sandbox was not found", "code": 502}


def test_a_host_name_leads_to_the_port(edge, served):
    host = host_of(PORT, served.sandbox_id)
    seen = via(edge, host, "/x?y=1").json()
    assert seen["path"] == "/x?y=1" and ["host", host] in seen["headers"]


@pytest.mark.parametrize("domain", ["localhost", "other.example:8443", "a.b.c.example"])
def test_any_domain_will_do(edge, served, domain):
    assert via(edge, host_of(PORT, served.sandbox_id, domain)).status_code == 200


def test_a_client_id_in_the_label_is_ignored(edge, served):
    host = f"{PORT}-{served.sandbox_id}-abc123.other.example:8443"
    assert via(edge, host).json()["method"] == "GET"


def test_the_domain_of_the_api_and_the_sdk_agree(edge, api, served):
    domain = api.get(f"/sandboxes/{served.sandbox_id}").json()["domain"]
    assert served.get_host(8080) == f"8080-{served.sandbox_id}.{domain}"
    assert via(edge, served.get_host(PORT)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "sandbox.warren.example",
        "127.0.0.1:{port}",
        "[::1]:{port}",
        "localhost:{port}",
        "localhost",
        "10.1.2.3",
    ],
)
def test_headers_route_on_shared_hosts(edge, served, host):
    host = host.format(port=httpx.URL(env.SANDBOX_URL).port)
    headers = {"e2b_sandbox_id": served.sandbox_id, "E2B_Sandbox_Port": "49983"}
    assert via(edge, host, "/health", **headers).status_code == 204


def test_a_host_name_beats_headers(edge, served):
    host = host_of(PORT, served.sandbox_id)
    answer = via(edge, host, e2b_sandbox_id=DEAD, e2b_sandbox_port="1")
    assert answer.status_code == 200


def test_half_a_pair_of_headers(edge, served):
    for headers in ({"e2b_sandbox_id": served.sandbox_id}, {"e2b_sandbox_port": "3000"}):
        text(via(edge, "sandbox.warren.example", **headers), 400, "missing header")


@pytest.mark.parametrize("host", ["sandbox.warren.example", "nolabels.warren.example"])
def test_a_host_that_names_no_sandbox_is_the_apis(edge, host):
    # One port serves both edges: what is not a sandbox's belongs to the API.
    answer = via(edge, host, "/no-such-route")
    assert answer.status_code == 404 and answer.json()["code"] == 404


@pytest.mark.parametrize("label", ["3000-ID_UPPER", "3000-i0000000000000000dEad", "3000-i%2f"])
def test_an_id_of_other_characters(edge, label):
    text(via(edge, f"{label}.warren.example"), 400, "Invalid sandbox ID")
    _, _, bad = label.partition("-")
    headers = {"e2b_sandbox_id": bad, "e2b_sandbox_port": "3000"}
    text(via(edge, "localhost", **headers), 400, "Invalid sandbox ID")


@pytest.mark.parametrize("port", ["abc", "0", "65536", "99999999999999999999", "-1", "+80"])
def test_a_port_that_is_none(edge, served, port):
    headers = {"e2b_sandbox_id": served.sandbox_id, "e2b_sandbox_port": port}
    answer = via(edge, "localhost", **headers)
    assert answer.status_code == 400
    if port == "abc":
        text(answer, 400, "Invalid sandbox port")
        assert via(edge, f"abc-{served.sandbox_id}.warren.example").status_code == 400


def test_an_unknown_sandbox(edge):
    proxy_json(via(edge, host_of(80, DEAD), user_agent="curl/8"), not_found(DEAD))


def page(answer: httpx.Response, status: int, *contents: str) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<html") and answer.text.endswith("</html>")
    for content in contents:
        assert content in answer.text, content


def test_browsers_get_pages(edge, served):
    browser = {"user_agent": BROWSER, "accept": "text/html"}
    page(via(edge, host_of(80, DEAD), **browser), 502, "Sandbox Not Found", DEAD)
    host = host_of(3210, served.sandbox_id)
    answer = via(edge, host, **browser)
    page(answer, 502, "no service running on port", served.sandbox_id, "3210", host)
    answer = via(edge, host_of(49983, DEAD), "/init", **browser)
    page(answer, 404, "Endpoint Not Available", "/init")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_mode": "cors"},
        {"sec_fetch_mode": "websocket"},
        {"accept": "application/json"},
        {"x_requested_with": "x"},
    ],
)
def test_page_scripts_get_json(edge, headers):
    answer = via(edge, host_of(80, DEAD), **{"user_agent": BROWSER, "accept": "*/*", **headers})
    proxy_json(answer, not_found(DEAD))


def test_a_navigation_is_a_page_whatever_else(edge):
    headers = {"sec_fetch_mode": "navigate", "x_requested_with": "x", "user_agent": BROWSER}
    page(via(edge, host_of(80, DEAD), **headers), 502, "Sandbox Not Found")


def test_pages_escape_what_came_from_outside(edge, served):
    answer = via(edge, host_of(49983, DEAD), "/x/../init?<script>", user_agent=BROWSER)
    assert "<script>" not in answer.text


def test_a_closed_port(edge, served):
    expected = {
        "sandboxId": served.sandbox_id,
        "message": "The sandbox is running but port is not open",
        "port": 3210,
        "code": 502,
    }
    proxy_json(via(edge, host_of(3210, served.sandbox_id)), expected)


def test_a_port_that_opens_during_the_request(edge, sandbox):
    sandbox.commands.run(
        "sleep 0.4; exec python3 -m http.server -b 127.0.0.1 3333", background=True, timeout=0
    )
    assert via(edge, host_of(3333, sandbox.sandbox_id)).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/init",
        "//init/",
        "/x/../init",
        "/%69nit",
        "/init/",
        "/./init",
        "/freeze",
        "/unfreeze",
        "/collapse",
        "/fsfreeze",
        "/fsthaw",
        "/upgrade",
    ],
)
def test_internal_routes_are_refused(edge, served, path):
    for sandbox_id in (served.sandbox_id, DEAD):
        # Written by hand: the client library would tidy the path.
        answer = raw(host_of(49983, sandbox_id), path)
        body = answer.json()
        assert answer.status_code == 404 and body["code"] == 404, answer.text
        assert set(body) == {"message", "path", "code"}
        assert body["message"].startswith("This endpoint is reserved for")


def raw(host: str, path: str, method: str = "POST") -> httpx.Response:
    """Sends a path exactly as it is written."""
    url = httpx.URL(env.SANDBOX_URL)
    request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n"
    with socket.create_connection((url.host, url.port), 20) as connection:
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        received = b""
        while data := connection.recv(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
    status = int(lines[0].split()[1])
    if ("transfer-encoding", "chunked") in [(k.lower(), v) for k, v in headers]:
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    headers = [(k, v) for k, v in headers if k.lower() != "transfer-encoding"]
    return httpx.Response(status, headers=headers, content=body)


def test_the_same_paths_of_a_users_server_are_forwarded(edge, served):
    assert via(edge, host_of(PORT, served.sandbox_id), "/init").json()["path"] == "/init"


def test_a_killed_sandbox_is_unknown_at_once(edge):
    sandbox = Sandbox.create(timeout=60)
    host = host_of(49983, sandbox.sandbox_id)
    assert via(edge, host, "/health").status_code == 204
    sandbox.kill()
    proxy_json(via(edge, host, "/health"), not_found(sandbox.sandbox_id))
    assert sandbox.is_running() is False


def test_an_expired_sandbox_is_unknown(edge):
    sandbox = Sandbox.create(timeout=1)
    host = host_of(49983, sandbox.sandbox_id)
    answer = until(
        lambda: (a := via(edge, host, "/health")).status_code == 502 and a, "the expiry", 10
    )
    proxy_json(answer, not_found(sandbox.sandbox_id))


def test_pages_of_other_origins_can_read_refusals(edge, served):
    origin = {"origin": "https://example.com"}
    for sandbox_id, port in ((DEAD, 80), (served.sandbox_id, 3210)):
        answer = via(edge, host_of(port, sandbox_id), **origin)
        assert answer.status_code == 502
        assert answer.headers["access-control-allow-origin"] == "*"
    preflight = {**origin, "access_control_request_method": "POST"}
    answer = via(edge, host_of(80, DEAD), method="OPTIONS", **preflight)
    assert answer.is_success and answer.headers["access-control-allow-origin"]


class TestPrivateTraffic:
    """A sandbox whose ports need the traffic token."""

    @pytest.fixture(scope="class")
    def private(self) -> Sandbox:
        sandbox = Sandbox.create(timeout=120, network={"allow_public_traffic": False})
        serve(sandbox, 8080)
        yield sandbox
        sandbox.kill()

    def denied(self, private, word: str) -> dict:
        if word == "missing":
            detail = "Token header 'e2b-traffic-access-token' is missing"
        else:
            detail = "Provided token in header 'e2b-traffic-access-token' is invalid"
        message = f"Sandbox is secured with traffic access token. {detail}"
        return {"sandboxId": private.sandbox_id, "message": message, "code": 403}

    def test_the_token_opens_the_port(self, edge, private):
        token = private.traffic_access_token
        assert token
        host = host_of(8080, private.sandbox_id)
        proxy_json(via(edge, host), self.denied(private, "missing"))
        proxy_json(via(edge, host, e2b_traffic_access_token="x"), self.denied(private, "invalid"))
        seen = via(edge, host, E2B_Traffic_Access_Token=token).json()
        assert ["e2b-traffic-access-token", token] in seen["headers"]

    def test_the_agents_port_needs_none(self, edge, private):
        assert via(edge, host_of(49983, private.sandbox_id), "/health").status_code == 204
        assert private.commands.run("echo ok").stdout == "ok\n"

    def test_a_browser_gets_a_page(self, edge, private):
        host = host_of(8080, private.sandbox_id)
        headers = {"user_agent": BROWSER, "accept": "text/html"}
        answer = via(edge, host, **headers)
        page(
            answer,
            403,
            "Missing Traffic Access Token",
            private.sandbox_id,
            "e2b-traffic-access-token",
        )
        answer = via(edge, host, e2b_traffic_access_token="x", **headers)
        page(answer, 403, "Invalid Traffic Access Token")

    def test_a_preflight_is_answered(self, edge, private):
        host = host_of(8080, private.sandbox_id)
        headers = {"origin": "https://example.com", "access_control_request_method": "GET"}
        assert via(edge, host, method="OPTIONS", **headers).is_success
        refusal = via(edge, host, origin="https://example.com")
        assert refusal.status_code == 403
        assert refusal.headers["access-control-allow-origin"] == "*"

    def test_it_needs_a_secured_sandbox(self, api):
        body = {"templateID": "base", "network": {"allowPublicTraffic": False}}
        message = "You cannot create a sandbox without public access unless you enable secure"
        refused(api.post("/sandboxes", json=body), 400, message)


def test_a_masked_host(edge):
    network = {"mask_request_host": "localhost:${PORT}"}
    with Sandbox.create(timeout=60, network=network) as sandbox:
        serve(sandbox, 8080)
        host = host_of(8080, sandbox.sandbox_id)
        seen = dict(via(edge, host).json()["headers"])
        assert seen["host"] == "localhost:8080" and seen["x-forwarded-host"] == host
        assert sandbox.commands.run("echo ok").stdout == "ok\n"


def test_a_masked_host_that_is_no_host(api):
    body = {"templateID": "base", "network": {"maskRequestHost": "-https://abcd"}}
    refused(api.post("/v2/sandboxes", json=body), 400, "mask request host is not valid")
