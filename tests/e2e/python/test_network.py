"""What a sandbox reaches, and what it must not."""

import pytest
from e2b import Sandbox

from support.api import refused
from support.env import host_of
from support.guest import serve

DIAL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
    print("open")
except OSError as error:
    print("closed", error)
"""


@pytest.fixture(scope="module")
def dial(sandbox):
    sandbox.files.write("/tmp/dial.py", DIAL)

    def run(address: str, port: int) -> str:
        return sandbox.commands.run(f"python3 /tmp/dial.py {address} {port}").stdout

    return run


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.17.0.1",
        "192.168.0.1",
        "fd00::1",
        "fe80::1",
    ],
)
def test_private_ranges_are_out_of_reach(dial, address):
    assert dial(address, 80).startswith("closed")


def test_a_private_range_stays_out_of_reach_when_it_is_allowed(create):
    made = create({"network": {"allowOut": ["10.0.0.0/8", "100.64.0.0/10"]}})
    sandbox = Sandbox.connect(made["sandboxID"])
    sandbox.files.write("/tmp/dial.py", DIAL)
    for address in ("10.0.0.1", "100.64.0.1"):
        got = sandbox.commands.run(f"python3 /tmp/dial.py {address} 80").stdout
        assert got.startswith("closed")


def test_sandboxes_do_not_reach_each_other(sandbox, dial):
    with Sandbox.create(timeout=60) as other:
        serve(other, 8080)
        addresses = other.commands.run("hostname -I || true").stdout.split()
        own = sandbox.commands.run("hostname -I || true").stdout.split()
        assert addresses, "the other sandbox has no address to try"
        for address in addresses:
            if address not in own:
                assert dial(address, 8080).startswith("closed")
                assert dial(address, 49983).startswith("closed")


def test_no_internet_when_refused(edge):
    with Sandbox.create(timeout=60, allow_internet_access=False) as sandbox:
        sandbox.files.write("/tmp/dial.py", DIAL)
        for address in ("1.1.1.1", "8.8.8.8"):
            got = sandbox.commands.run(f"curl -sS --max-time 3 http://{address} || echo failed")
            assert "failed" in got.stdout
        serve(sandbox, 8080)
        answer = edge.get("/", headers={"host": host_of(8080, sandbox.sandbox_id)})
        assert answer.status_code == 200
        assert sandbox.get_info().allow_internet_access is False


@pytest.mark.parametrize(
    "network,message",
    [
        ({"denyOut": ["example.com"]}, "invalid denied CIDR example.com"),
        ({"denyOut": ["300.1.1.1"]}, "invalid denied CIDR 300.1.1.1"),
        ({"allowOut": ["example.com"]}, "you must include 'ALL_TRAFFIC' in deny out"),
        ({"httpsPorts": [49983]}, "not supported for reserved port 49983"),
        ({"httpsPorts": [0]}, "HTTPS port must be between 1 and 65535: 0"),
        ({"httpsPorts": [443, 443]}, "HTTPS port 443 is specified more than once"),
    ],
)
def test_bad_network_settings_are_400(api, network, message):
    refused(
        api.post("/v2/sandboxes", json={"templateID": "base", "network": network}), 400, message
    )


def test_network_settings_are_reported(api, create):
    network = {"denyOut": ["0.0.0.0/0"], "maskRequestHost": "localhost:${PORT}"}
    made = create({"network": network})
    found = api.get(f"/sandboxes/{made['sandboxID']}").json()["network"]
    assert found["denyOut"] == ["0.0.0.0/0"]
    assert found["maskRequestHost"] == "localhost:${PORT}"


def test_the_name_server_answers_only_names(sandbox):
    result = sandbox.commands.run("cat /etc/resolv.conf && getent hosts localhost")
    assert "nameserver" in result.stdout and "localhost" in result.stdout
