"""Sandboxes that call each other by their public names, on a fake internet.

The lab takes an address range of the host, so nothing else may run beside it.
"""

import json

import pytest
from e2b import ALL_TRAFFIC, Sandbox, Secret

from support.guest import serve
from support.host import Listener
from support.lab import HOST, RESOLVER, Lab
from support.server import Server

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

DOMAIN = "sandboxes.test"
PORT = 8080


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def server(lab, tmp_path_factory):
    """A server on a public address, with the certificate that the lab has for its names."""
    server = Server(tmp_path_factory.mktemp("server"), HOST, 443)
    tls = ["--tls-cert", lab.directory / "cert.pem", "--tls-key", lab.directory / "key.pem"]
    trust = ["--egress-ca-file", lab.authority]
    names = ["--domain", DOMAIN, "--resolver", f"{RESOLVER}:53"]
    server.start(*map(str, [*names, *tls, *trust]), "--warm", "1", "--slots", "2")
    yield server
    server.clear()


@pytest.fixture(scope="module")
def service(server):
    """A sandbox that tells whoever calls it what reached it."""
    with server.create() as sandbox:
        serve(sandbox, PORT)
        yield sandbox


@pytest.fixture
def caller(server, lab):
    made: list[Sandbox] = []

    def make(**options) -> Sandbox:
        made.append(server.create(**options))
        made[-1].files.write("/tmp/lab.pem", lab.authority.read_text())
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.kill()


def called(caller: Sandbox, url: str, options: str = "") -> dict:
    done = caller.commands.run(f"curl -sS --max-time 10 {options} {url}")
    return json.loads(done.stdout)


def test_a_sandbox_calls_another_by_its_public_name(caller, service):
    host = service.get_host(PORT)
    assert host == f"{PORT}-{service.sandbox_id}.{DOMAIN}"
    seen = called(caller(), f"https://{host}/x?y=1", "--cacert /tmp/lab.pem")
    assert seen["path"] == "/x?y=1" and ["host", host] in seen["headers"]


def test_nothing_else_of_the_host_is_reached_that_way(caller, service):
    with Listener() as listener:
        one = caller()
        for address in (HOST, service.get_host(PORT)):
            for port in (listener.port, 22):
                url = f"http://{address}:{port}/"
                done = one.commands.run(f"curl -sS --max-time 3 {url} || echo refused")
                assert done.stdout == "refused\n", url
    closed = caller(allow_internet_access=False)
    url = f"https://{service.get_host(PORT)}/"
    done = closed.commands.run(f"curl -sSk --max-time 5 {url} || echo refused")
    assert done.stdout == "refused\n"


@pytest.mark.parametrize("names_only", [False, True])
def test_a_header_of_a_rule_is_reflected_exactly_once(caller, service, server, names_only):
    host, keys = service.get_host(PORT), {"api_key": server.key, "api_url": server.url}
    Secret.create("reflected", "the-value", **keys)
    try:
        headers = {"X-Injected": f"v {Secret.fill('reflected')}"}
        network = {"rules": {host: [{"transform": {"headers": headers}}]}}
        if names_only:
            network |= {"deny_out": [ALL_TRAFFIC], "allow_out": [host]}
        one = caller(network=network)
        # The caller's own header of that name is replaced.
        seen = called(one, f"https://{host}/", "-H 'x-injected: mine'")
        values = [value for name, value in seen["headers"] if name == "x-injected"]
        assert values == ["v the-value"]
        assert ["host", host] in seen["headers"]
        # Another name of the same server has no rule.
        other = service.get_host(PORT + 1)
        answer = one.commands.run(f"curl -sSk --max-time 10 https://{other}/ || echo refused")
        if names_only:
            assert answer.stdout == "refused\n"
        else:
            assert json.loads(answer.stdout)["port"] == PORT + 1
    finally:
        Secret.destroy("reflected", **keys)
