"""What leaves a sandbox: every way around the rules is tried against a fake internet.

The lab takes an address range of the host, so nothing else may run beside it.
"""

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from e2b import Sandbox, SandboxNotFoundException

from support.lab import EVIL, GOOD, HOST, OTHER, RESOLVER, TUNNEL, WILD, Lab
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

PROBE = Path(__file__).parent.joinpath("support/lab_probe.py").read_text()
ALL = "0.0.0.0/0"
SERVICE = "192.0.2.1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def server(lab, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start("--resolver", f"{RESOLVER}:53", "--warm", "1", "--slots", "2")
    yield server
    server.clear()


class Guest:
    """A sandbox with the probe in it."""

    def __init__(self, server: Server, sandbox: Sandbox):
        self.server, self.sandbox = server, sandbox
        sandbox.files.write("/tmp/probe.py", PROBE)

    def attempt(self, *attempts, user="root") -> list[list[str]]:
        path = f"/tmp/{uuid.uuid4().hex}"
        self.sandbox.files.write(path, json.dumps(attempts), user=user)
        done = self.sandbox.commands.run(f"python3 /tmp/probe.py <{path}", user=user, timeout=90)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def one(self, *attempt) -> list[str]:
        return self.attempt(attempt)[0]

    def refusals(self) -> list[str]:
        with self.server.api() as api:
            answer = api.get(f"/v2/sandboxes/{self.sandbox.sandbox_id}/logs", params={"limit": 500})
        lines = [entry["message"] for entry in answer.json()["logs"]]
        return [line for line in lines if line.startswith("egress refused: ")]

    def told(self, line: str) -> None:
        """Waits for a refusal in the log."""
        until(lambda: f"egress refused: {line}" in self.refusals(), f"the log tells: {line}", 5)


@pytest.fixture
def guest(server):
    made: list[Sandbox] = []

    def make(**options) -> Guest:
        made.append(server.create(**options))
        return Guest(server, made[-1])

    yield make
    for sandbox in made:
        sandbox.kill()


def names_only(*allowed: str, **more) -> dict:
    return {"network": {"allow_out": list(allowed), "deny_out": [ALL], **more}}


def went_to(result: list[str], address: str) -> bool:
    return result[0] == "ok" and json.loads(result[1].split("\r\n\r\n", 1)[1])["at"] == address


def test_without_rules_everything_public_is_reached(guest):
    results = guest().attempt(
        ["http", EVIL, "evil.test"],
        ["tls", EVIL, "evil.test"],
        ["tcp", EVIL, 22],
        ["udp", EVIL, 443],
        ["udp", EVIL, 9999],
        ["icmp", EVIL],
        ["dns", TUNNEL, "evil.test"],
        ["dns", SERVICE, "evil.test"],
        ["dns", SERVICE, "evil.test", 1, "tcp"],
        ["ech", EVIL, "good.test"],
    )
    assert [result[0] for result in results] == ["ok"] * 10, results


def test_denied_addresses_are_refused_and_others_are_not(guest):
    guest = guest(network={"deny_out": [EVIL, "198.51.100.0/24"]})
    results = guest.attempt(
        ["http", EVIL, "evil.test"],
        ["tls", EVIL, "evil.test"],
        ["tcp", EVIL, 22],
        ["tcp", "198.51.100.7", 5432],
        ["udp", EVIL, 443],
        ["udp", EVIL, 9999],
        ["icmp", EVIL],
    )
    assert [result[0] for result in results] == ["refused"] * 7, results
    results = guest.attempt(
        ["http", OTHER, "other.test"],
        ["tcp", GOOD, 22],
        ["udp", GOOD, 443],
        ["dns", SERVICE, "evil.test"],
        ["icmp", GOOD],
    )
    assert [result[0] for result in results] == ["ok"] * 5, results
    for line in [
        f"tcp {EVIL}:80: denyOut {EVIL}/32",
        f"tcp {EVIL}:22: denyOut {EVIL}/32",
        "tcp 198.51.100.7:5432: denyOut 198.51.100.0/24",
        f"udp {EVIL}:9999: denyOut {EVIL}/32",
        f"icmp {EVIL}: denyOut {EVIL}/32",
    ]:
        guest.told(line)


def test_an_allowed_address_wins_over_denied_ones(guest):
    guest = guest(network={"deny_out": [ALL], "allow_out": [GOOD]})
    results = guest.attempt(
        ["http", GOOD, "anything.example"],
        ["tls", GOOD, "evil.test"],
        ["tcp", GOOD, 22],
        ["udp", GOOD, 9999],
        ["icmp", GOOD],
    )
    assert [result[0] for result in results] == ["ok"] * 5, results
    results = guest.attempt(
        ["http", OTHER, "other.test"],
        ["tcp", OTHER, 22],
        ["udp", OTHER, 9999],
        ["udp", TUNNEL, 53],
        ["icmp", OTHER],
    )
    assert [result[0] for result in results] == ["refused"] * 5, results
    assert guest.one("dns", SERVICE, "good.test") == ["ok", "code 5 records 0"]


def test_names_reach_their_own_address_only(guest, lab):
    guest = guest(**names_only("good.test", "*.wild.test"))
    before = len(lab.reached(EVIL))
    results = guest.attempt(
        ["http", GOOD, "good.test"],
        ["http", EVIL, "good.test"],
        ["http", EVIL, "GOOD.test.:80"],
        ["tls", GOOD, "good.test"],
        ["tls", EVIL, "good.test"],
        ["tls", EVIL, "good.test", "good.test", 1],
        ["tls", EVIL, "good.test", "good.test", 0, 1],
        ["tls", EVIL, "good.test", "good.test", 3, 5],
        ["tls", EVIL, "good.test", "evil.test"],
    )
    assert [went_to(result, GOOD) for result in results] == [True] * 9, results
    for name in ("a.wild.test", "b.a.wild.test"):
        assert went_to(guest.one("tls", EVIL, name), WILD)
    assert len(lab.reached(EVIL)) == before
    # As the system itself resolves, and with a lying file of names.
    run = guest.sandbox.commands.run
    run(f"echo {EVIL} good.test >>/etc/hosts", user="root")
    answer = run("curl -sS --max-time 5 http://good.test/x").stdout
    assert json.loads(answer)["at"] == GOOD
    assert len(lab.reached(EVIL)) == before


def test_no_way_around_names(guest, lab, server):
    first = guest(**names_only("good.test", "*.wild.test", "inside.test", "loop.test"))
    with server.create() as neighbour:
        neighbour_address = neighbour.commands.run("hostname -I").stdout.split()[0]
        before = lab.seen()
        attempts = [
            ["http", EVIL, "evil.test"],
            ["http", EVIL, EVIL],
            ["http", OTHER, "wild.test"],
            ["tls", EVIL, "evil.test"],
            ["tls", OTHER, "wild.test"],
            ["tls", EVIL, None, "evil.test"],
            ["tls", EVIL, "evil.test", "good.test"],
            ["tls", EVIL, "evil.test", "good.test", 1],
            ["tls", EVIL, "evil.test", "good.test", 0, 1],
            ["tcp", EVIL, 80, "GET http://evil.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n"],
            ["tcp", EVIL, 80, "CONNECT evil.test:443 HTTP/1.1\r\nHost: good.test\r\n\r\n"],
            ["tcp", EVIL, 80, "GET / HTTP/1.1\r\nHost: evil.test\r\nHost: good.test\r\n\r\n"],
            ["tcp", EVIL, 80, "no HTTP at all\r\n\r\n"],
            ["tcp", EVIL, 22],
            ["tcp", EVIL, 8080, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"],
            ["tcp", GOOD, 22],
            ["udp", EVIL, 443],
            ["udp", GOOD, 443],
            ["udp", EVIL, 9999],
            ["icmp", EVIL],
            ["icmp", GOOD],
            ["dns", TUNNEL, "secret.evil.test"],
            ["dns", TUNNEL, "secret.evil.test", 1, "tcp"],
            ["dns", "1.1.1.1", "good.test"],
            ["http", "169.254.169.254", "good.test"],
            ["http", "127.0.0.1", "good.test"],
            ["http", HOST, "evil.test"],
            ["http", neighbour_address, "good.test"],
            ["tcp", neighbour_address, 49983, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"],
            ["tls", EVIL, "inside.test"],
            ["tls", EVIL, "loop.test"],
            ["http", "10.0.0.1", "inside.test"],
            ["tcp", SERVICE, 3129, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"],
            ["tcp", "2001:db8::1", 80, "x"],
            ["udp", "2001:db8::1", 443],
            ["icmp6", "2001:db8::1"],
            ["icmp6", "ff02::1"],
            ["icmp6", "ff02::2"],
            ["dns", "2001:4860:4860::8888", "good.test"],
            ["ech", GOOD, "good.test"],
            ["ech", EVIL, "good.test"],
            ["tcp", TUNNEL, 853, "x"],
        ]
        with ThreadPoolExecutor(4) as threads:
            parts = [attempts[at::4] for at in range(4)]
            done = list(threads.map(lambda part: first.attempt(*part), parts))
        for part, results in zip(parts, done, strict=True):
            for attempt, result in zip(part, results, strict=True):
                assert result[0] == "refused", (attempt, result)
        first.one("raw", EVIL, 9999)
    new = [entry for entry in lab.seen() if entry not in before]
    assert [entry for entry in new if entry["at"] in (EVIL, TUNNEL, OTHER)] == []
    assert [entry for entry in new if entry["kind"] == "udp"] == []
    for line in [
        f"tcp {EVIL}:80 for evil.test: denyOut {ALL}",
        f"tcp {EVIL}:443 for evil.test: denyOut {ALL}",
        f"tcp {EVIL}:443: denyOut {ALL}",
        f"tcp {EVIL}:22: denyOut {ALL}",
        f"udp {EVIL}:443: QUIC does not show names",
        f"udp {EVIL}:9999: denyOut {ALL}",
        f"udp {TUNNEL}:53: denyOut {ALL}",
        f"tcp {EVIL}:443 for inside.test: its addresses are not public",
        f"tcp {GOOD}:443 for good.test: an encrypted client hello hides the name",
        "tcp 169.254.169.254:80: the address is not public",
    ]:
        first.told(line)


def test_frames_made_by_hand_lead_nobody_astray(guest, lab, server):
    attacker, victim = guest(**names_only("good.test")), guest()
    address = victim.sandbox.commands.run("hostname -I").stdout.split()[0]
    before = len(lab.reached(EVIL))
    claimed = [address, GOOD, RESOLVER, SERVICE]
    with ThreadPoolExecutor(1) as thread:
        sniffed = thread.submit(attacker.one, "sniff", 3, address)
        for _ in range(3):
            assert attacker.one("arp", *claimed) == ["ok", "sent"]
            results = victim.attempt(["http", GOOD, "good.test"], ["dns", SERVICE, "good.test"])
            assert went_to(results[0], GOOD) and results[1][0] == "ok", results
        assert sniffed.result() == ["ok", "0"]
    # The attacker's own way out is what it was, at most it has cut itself off.
    attacker.one("fragments", EVIL, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")
    assert attacker.one("http", EVIL, "evil.test")[0] == "refused"
    assert len(lab.reached(EVIL)) == before


def test_a_second_request_on_a_connection_is_judged_too(guest, lab):
    guest = guest(**names_only("good.test"))
    both = "GET /1 HTTP/1.1\r\nHost: good.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    guest.one("tcp", EVIL, 80, both)
    until(lambda: any("/1" in entry.get("line", "") for entry in lab.reached(GOOD)), "the first")
    guest.told(f"tcp {EVIL}:80 for evil.test: denyOut {ALL}")
    assert not any("/2" in entry.get("line", "") for entry in lab.seen())


def test_names_are_answered_by_our_resolver_and_only_those_of_the_policy(guest, lab):
    guest = guest(**names_only("good.test", dns_servers=["8.8.8.8", TUNNEL]))
    secret = f"{uuid.uuid4().hex}.evil.test"
    results = guest.attempt(
        ["dns", SERVICE, "good.test"],
        ["dns", "8.8.8.8", "good.test"],
        ["dns", TUNNEL, "good.test", 1, "tcp"],
        ["dns", SERVICE, "good.test", 65],
        ["dns", SERVICE, secret],
        ["dns", SERVICE, secret, 16, "tcp"],
        ["dns", "8.8.8.8", secret],
        ["dns", TUNNEL, secret],
    )
    answered, empty, refused = "code 0 records 1", "code 0 records 0", "code 5 records 0"
    assert [text for _, text in results] == [answered] * 3 + [empty] + [refused] * 4
    assert secret not in lab.asked() and lab.asked(TUNNEL).count("good.test") == 0
    guest.told(f"query for {secret}: no domain of allowOut")


def test_without_dns_servers_other_resolvers_are_out_of_reach(guest):
    guest = guest(**names_only("good.test", dns_servers=[]))
    assert guest.one("dns", "8.8.8.8", "good.test")[0] == "refused"
    assert guest.one("dns", SERVICE, "good.test")[1] == "code 0 records 1"


def test_no_internet_but_what_is_allowed(guest):
    guest = guest(allow_internet_access=False, network={"allow_out": ["good.test"]})
    assert went_to(guest.one("tls", GOOD, "good.test"), GOOD)
    assert guest.one("tls", EVIL, "evil.test")[0] == "refused"
    me = guest.sandbox.commands.run("curl -sS $E2B_EVENTS_ADDRESS/me").stdout
    assert json.loads(me)["sandboxID"] == guest.sandbox.sandbox_id


def test_an_update_replaces_all_rules_at_once(guest, server):
    guest = guest()
    sandbox = guest.sandbox
    options = {"sandbox_id": sandbox.sandbox_id, **server.options}
    del options["sandbox_url"]
    tls = ["tls", EVIL, "evil.test"]
    assert guest.one(*tls)[0] == "ok"
    for network, expected in [
        ({"deny_out": [ALL], "allow_out": ["good.test"]}, "refused"),
        ({"deny_out": [ALL], "allow_out": ["*"]}, "ok"),
        ({"deny_out": [ALL]}, "refused"),
        ({"deny_out": [GOOD]}, "ok"),
        ({"deny_out": [EVIL]}, "refused"),
        ({}, "ok"),
    ]:
        sandbox.update_network(network)
        assert guest.one(*tls)[0] == expected, network
    sandbox.update_network({"deny_out": [EVIL], "allow_out": [f"{EVIL}/32"]})
    assert guest.one(*tls)[0] == "ok"
    sandbox.update_network({"deny_out": [EVIL]})
    assert guest.one(*tls)[0] == "refused"
    found = sandbox.get_info().network
    assert found["deny_out"] == [EVIL] and not found.get("allow_out")


def test_rules_survive_pause_fork_and_a_crash_of_the_server(guest, server):
    guest = guest(**names_only("good.test"))
    checks = [["tls", EVIL, "good.test"], ["tls", EVIL, "evil.test"], ["udp", EVIL, 9999]]

    def holds(of: Guest) -> bool:
        good, evil, datagram = of.attempt(*checks)
        return went_to(good, GOOD) and evil[0] == datagram[0] == "refused"

    assert holds(guest)
    server.crash()
    server.start("--resolver", f"{RESOLVER}:53", "--warm", "1", "--slots", "2")
    assert holds(guest)
    sandbox = guest.sandbox
    sandbox.pause()
    with pytest.raises(SandboxNotFoundException):
        sandbox.update_network({})
    sandbox.connect(timeout=300)
    assert holds(guest)
    with server.api() as api:
        answer = api.post(f"/sandboxes/{sandbox.sandbox_id}/fork", json={"count": 1})
    assert answer.status_code == 201, answer.text
    forked = server.connect(answer.json()[0]["sandbox"]["sandboxID"])
    try:
        assert holds(Guest(server, forked))
    finally:
        forked.kill()


def test_a_thousand_names_are_found_as_fast_as_one(guest):
    many = [f"name-{number}.example" for number in range(990)] + ["*.wild.test", "good.test"]
    guest = guest(**names_only(*many))
    assert went_to(guest.one("tls", EVIL, "good.test"), GOOD)
    start = time.monotonic()
    results = guest.attempt(*[["http", EVIL, "good.test"]] * 50)
    print(f"50 requests with 992 names: {time.monotonic() - start:.3f} s")
    assert all(went_to(result, GOOD) for result in results)
