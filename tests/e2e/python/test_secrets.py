"""Header rules, secrets, workload tokens and egress proxies, on a fake internet.

The lab takes an address range of the host, so nothing else may run beside it.
"""

import base64
import json
import os
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2b import Sandbox, SandboxException, Secret, SecretNotFoundException
from e2b_code_interpreter import Sandbox as CodeInterpreter

from support.lab import EVIL, GOOD, MODERN, OTHER, PROXY, RESOLVER, Lab
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

PROBE = Path(__file__).parent.joinpath("support/lab_probe.py").read_text()
ALL = "0.0.0.0/0"
CA = "/usr/local/share/ca-certificates/e2b-ca.crt"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def flags(lab) -> list[str]:
    more = ["--egress-ca-file", str(lab.authority), "--public-url", "https://api.lab.test"]
    return ["--resolver", f"{RESOLVER}:53", "--warm", "1", "--slots", "2", *more]


@pytest.fixture(scope="module")
def server(lab, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start(*flags(lab))
    yield server
    server.clear()


@pytest.fixture
def keys(server):
    """Options of calls that need no sandbox."""
    return {"api_key": server.key, "api_url": server.url}


@contextmanager
def secret(name: str, value: str, keys: dict):
    Secret.create(name, value, **keys)
    try:
        yield name
    finally:
        Secret.destroy(name, **keys)


@pytest.fixture
def guest(server):
    made: list[Sandbox] = []

    def make(**options) -> Sandbox:
        made.append(server.create(**options))
        made[-1].files.write("/tmp/probe.py", PROBE)
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.kill()


def rule(host: str, **headers: str) -> dict:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return {host: [{"transform": {"headers": headers}}]}


def probe(sandbox: Sandbox, *attempt) -> list[str]:
    path = f"/tmp/{uuid.uuid4().hex}"
    sandbox.files.write(path, json.dumps([attempt]))
    done = sandbox.commands.run(f"python3 /tmp/probe.py <{path}", user="root", timeout=60)
    return json.loads(done.stdout.splitlines()[0])


def curl(sandbox: Sandbox, url: str, options: str = "") -> dict:
    done = sandbox.commands.run(f"curl -sS --max-time 10 {options} {url}")
    return json.loads(done.stdout)


def fields(entry: dict, name: str) -> list[str]:
    """The values of a header as the server got it."""
    lines = [line.split(":", 1) for line in entry["head"].split("\r\n")[1:] if ":" in line]
    return [value.strip() for key, value in lines if key.lower() == name.lower()]


def body(result: list[str]) -> dict:
    assert result[0] == "ok", result
    return json.loads(result[1].split("\r\n\r\n", 1)[1])


def log_of(server: Server, sandbox: Sandbox) -> list[str]:
    with server.api() as api:
        answer = api.get(f"/v2/sandboxes/{sandbox.sandbox_id}/logs", params={"limit": 500})
    return [entry["message"] for entry in answer.json()["logs"]]


def told(server: Server, sandbox: Sandbox, part: str) -> None:
    until(lambda: any(part in line for line in log_of(server, sandbox)), f"it tells: {part}", 5)


def update(server: Server, sandbox: Sandbox, network: dict) -> None:
    Sandbox.update_network(sandbox.sandbox_id, network, api_key=server.key, api_url=server.url)


def test_headers_are_set_over_http_and_https_and_replace_those_of_the_client(guest, keys, lab):
    with secret("main-key", "value-of-the-key", keys):
        rules = rule("good.test", X_Key=f"k {Secret.fill('main-key')}", X_Plain="plain")
        sandbox = guest(network={"rules": rules})
        for url in ("http://good.test/a", "https://good.test/a"):
            seen = curl(sandbox, url, "-H 'X-Key: mine' -H 'x-key: and mine' -H 'X-Other: o'")
            assert seen["at"] == GOOD
            assert fields(seen, "x-key") == ["k value-of-the-key"]
            assert fields(seen, "x-plain") == ["plain"] and fields(seen, "x-other") == ["o"]
        version = sandbox.commands.run(
            "curl -sS --http2 -o /dev/null -w '%{http_version}' https://good.test/quiet"
        )
        assert version.stdout == "2"
        python = "import urllib.request as u; print(u.urlopen('https://good.test/').read().decode())"
        seen = json.loads(sandbox.commands.run(f'python3 -c "{python}"').stdout)
        assert fields(seen, "x-key") == ["k value-of-the-key"]
        big = "curl -sS https://good.test/big | wc -c"
        assert sandbox.commands.run(big, timeout=60).stdout.strip() == str(32 << 20)
        # Inside there is nothing but the placeholder's name, and not even that.
        assert "value-of-the-key" not in sandbox.commands.run("env").stdout
        shown = sandbox.get_info().network["rules"]
        assert shown["good.test"][0]["transform"]["headers"]["X-Key"] == "k ${e2b.secrets.main-key}"


def test_a_host_that_speaks_http2_is_spoken_to_in_it(guest, lab):
    sandbox = guest(network={"rules": rule("modern.test", X_Key="v")})
    clients = {
        "curl -sS --http2": "2",
        "curl -sS --http1.1": "1.1",
    }
    for client, version in clients.items():
        command = f"{client} -H 'x-key: mine' -w '\\n%{{http_version}}' https://modern.test/a?b=c"
        shown, spoken = sandbox.commands.run(command).stdout.rsplit("\n", 1)
        assert spoken == version
        seen = json.loads(shown)
        spoken = "2" if version == "2" else "1.1"
        assert seen["at"] == MODERN
        assert seen["head"].startswith(f"GET /a?b=c HTTP/{spoken}\r\n")
        assert fields(seen, "x-key") == ["v"]
        assert fields(seen, "host") == ["modern.test"]
    # Many at once share a connection, and each has its own answer.
    urls = " ".join(f"https://modern.test/{number}" for number in range(20))
    shown = sandbox.commands.run(f"curl -sS --http2 -Z {urls}").stdout
    asked = {fields["head"].split(" ")[1] for fields in answers(shown)}
    assert asked == {f"/{number}" for number in range(20)}
    lines = [entry["line"] for entry in lab.reached(MODERN) if "line" in entry]
    assert sum(line.endswith(" HTTP/2") for line in lines) == 21


def answers(text: str) -> list[dict]:
    """JSON objects one behind the other."""
    found, decoder = [], json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def test_only_hosts_with_rules_are_looked_into(guest, lab):
    sandbox = guest(network={"rules": rule("*.wild.test", X_Key="v")})
    issuer = (
        "openssl s_client -connect {0}:443 -servername {0} </dev/null 2>/dev/null"
        " | openssl x509 -noout -issuer"
    )
    run = sandbox.commands.run
    assert "Warren egress" in run(issuer.format("a.wild.test")).stdout
    for name in ("good.test", "wild.test"):
        assert "lab authority" in run(issuer.format(name)).stdout
    assert run("curl -sS --max-time 5 https://good.test/ || true").stdout == ""
    seen = curl(sandbox, "https://good.test/", "-k")
    assert seen["at"] == GOOD and fields(seen, "x-key") == []


def test_a_rule_allows_nothing_by_itself(guest, server):
    rules = rule("good.test", X_Key="v")
    network = {"rules": rules, "deny_out": [ALL], "allow_out": ["other.test"]}
    sandbox = guest(network=network)
    assert probe(sandbox, "tls", GOOD, "good.test")[0] == "refused"
    told(server, sandbox, f"tcp {GOOD}:443 for good.test: denyOut {ALL}")
    update(server, sandbox, {**network, "allow_out": ["good.test"]})
    assert fields(body(probe(sandbox, "tls", EVIL, "good.test")), "x-key") == ["v"]


def test_a_secret_leaves_to_its_host_only(guest, keys, lab, server):
    with secret("bypass", "bypass-value-1f2e", keys):
        rules = rule("good.test", Authorization=f"Bearer {Secret.fill('bypass')}")
        sandbox = guest(network={"rules": rules})
        # To the host itself, however the handshake is cut and whatever address is dialled.
        for cut in ([], ["good.test", 1], ["good.test", 0, 1], ["good.test", 3, 5]):
            seen = body(probe(sandbox, "tls", EVIL, "good.test", *cut))
            assert seen["at"] == GOOD
            assert fields(seen, "authorization") == ["Bearer bypass-value-1f2e"]
        assert body(probe(sandbox, "http", EVIL, "good.test"))["at"] == GOOD
        # The attacker's own server, under any name, and fronting in both directions.
        for attempt in (
            ["tls", EVIL, "evil.test", "good.test"],
            ["tls", EVIL, "evil.test"],
            ["tls", EVIL, None, "good.test"],
            ["tcp", EVIL, 8080, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"],
        ):
            assert fields(body(probe(sandbox, *attempt)), "authorization") == [], attempt
        status, answer = probe(sandbox, "tls", EVIL, "good.test", "evil.test")
        assert status == "ok" and " 421 " in answer.split("\r\n")[0], answer
        told(server, sandbox, "for evil.test: the connection is with good.test")
        for line in (
            "GET http://evil.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.test\r\nHost: good.test\r\n\r\n",
        ):
            probe(sandbox, "tcp", EVIL, 80, line)
        # A name that its owner lets resolve to the attacker's address has no certificate.
        sandbox.commands.run(f"echo {EVIL} good.test >>/etc/hosts", user="root")
        assert curl(sandbox, "https://good.test/")["at"] == GOOD
        assert probe(sandbox, "udp", GOOD, 443)[0] == "refused"
    assert not any("bypass-value" in json.dumps(entry) for entry in lab.reached(EVIL))


def test_a_host_with_a_wrong_certificate_gets_nothing(guest, keys, lab, server):
    with secret("verified", "verified-value-77aa", keys):
        sandbox = guest(network={"rules": rule("evil.test", X_Key=Secret.fill("verified"))})
        status, answer = probe(sandbox, "tls", EVIL, "evil.test")
        assert status == "ok" and " 502 " in answer.split("\r\n")[0]
        told(server, sandbox, "for evil.test: TLS with the host: invalid peer certificate")
    assert not any("verified-value" in json.dumps(entry) for entry in lab.reached(EVIL))


def test_a_websocket_goes_through(guest):
    sandbox = guest(network={"rules": rule("good.test", X_Key="v")})
    program = """
import socket, ssl
stream = ssl.create_default_context().wrap_socket(
    socket.create_connection(("good.test", 443), 5), server_hostname="good.test")
stream.sendall(b"GET /ws HTTP/1.1\\r\\nHost: good.test\\r\\nUpgrade: websocket\\r\\n"
    b"Connection: Upgrade\\r\\nSec-WebSocket-Key: x\\r\\n\\r\\n")
head = b""
while b"\\r\\n\\r\\n" not in head:
    head += stream.recv(4096)
print(head.split(b"\\r\\n")[0].decode())
stream.sendall(b"ping")
print(stream.recv(100).decode())
"""
    sandbox.files.write("/tmp/ws.py", program)
    assert sandbox.commands.run("python3 /tmp/ws.py").stdout == (
        "HTTP/1.1 101 Switching Protocols\nping\n"
    )


def test_a_value_is_rotated_without_a_restart_and_its_loss_is_told(guest, keys, server):
    name = f"rotated-{uuid.uuid4().hex[:8]}"
    Secret.create(name, "first", **keys)
    sandbox = guest(network={"rules": rule("good.test", X_Key=Secret.fill(name))})
    assert fields(curl(sandbox, "https://good.test/"), "x-key") == ["first"]
    Secret.update(name, "second", **keys)
    assert fields(curl(sandbox, "https://good.test/"), "x-key") == ["second"]
    assert Secret.destroy(name, **keys) is True
    status = "curl -sS -o /dev/null -w '%{http_code}' https://good.test/"
    assert sandbox.commands.run(status).stdout == "502"
    told(server, sandbox, f"for good.test: secret {name}: it does not exist")
    with pytest.raises(SecretNotFoundException):
        Secret.get_info(name, **keys)


def test_an_update_brings_rules_and_takes_them_away(guest, server):
    sandbox = guest()
    missing = f"test -e {CA} && echo there || echo missing"
    assert sandbox.commands.run(missing).stdout.strip() == "missing"
    trusted = "printenv NODE_EXTRA_CA_CERTS SSL_CERT_FILE REQUESTS_CA_BUNDLE"
    before = sandbox.commands.run(trusted).stdout
    assert before == f"{BUNDLE}\n" * 3
    update(server, sandbox, {"rules": rule("good.test", X_Key="v")})
    assert sandbox.commands.run(missing).stdout.strip() == "there"
    assert fields(curl(sandbox, "https://good.test/"), "x-key") == ["v"]
    assert sandbox.commands.run(trusted).stdout == before
    update(server, sandbox, {})
    assert fields(body(probe(sandbox, "tls", GOOD, "good.test")), "x-key") == []
    assert sandbox.get_info().network is None or not sandbox.get_info().network.get("rules")


WAITING_PYTHON = """
import os, ssl, sys, time, urllib.request
print("up", flush=True)
while not os.path.exists("/tmp/go"):
    time.sleep(0.05)
print(urllib.request.urlopen("https://good.test/quiet").read().decode(), flush=True)
"""

def test_what_runs_already_trusts_an_authority_that_comes_later(guest, server):
    sandbox = guest()
    sandbox.files.write("/tmp/waiting.py", WAITING_PYTHON)
    program = 'require("https").get("https://good.test/quiet", (a) => a.pipe(process.stdout))'
    sandbox.files.write("/tmp/started.js", program)
    run = sandbox.commands.run
    # With our variables, and without any.
    waiting = {
        "python": "exec python3 /tmp/waiting.py",
        "bare": "exec env -i /usr/bin/python3 /tmp/waiting.py",
    }
    for name, command in waiting.items():
        run(f"{command} >/tmp/{name} 2>&1", background=True)
    until(lambda: run("cat /tmp/python /tmp/bare || true").stdout == "up\n" * 2, "both wait", 20)
    update(server, sandbox, {"rules": rule("good.test", X_Key="v")})
    run("touch /tmp/go")
    for name in waiting:
        until(lambda: "ok" in run(f"cat /tmp/{name}").stdout, f"{name} trusts the authority", 20)
    # Node.js reads its list when it starts.
    assert run("node /tmp/started.js").stdout == "ok"
    assert run("sudo curl -sS https://good.test/quiet").stdout == "ok"
    plain = "import urllib.request as u; print(u.urlopen('https://good.test/quiet').read().decode())"
    assert run(f'sudo python3 -c "{plain}"').stdout == "ok\n"


CELLS = {
    "python": "import urllib.request as u\nprint(u.urlopen('https://good.test/quiet').read().decode())",
    "javascript": "console.log(await (await fetch('https://good.test/quiet')).text())",
}


def test_kernels_that_run_trust_an_authority_that_comes_later(lab, tmp_path):
    server = Server(tmp_path)
    server.start(*flags(lab), "--templates", "code-interpreter-v1", "--wait-templates")
    try:
        with CodeInterpreter.create(timeout=120, **server.options) as sandbox:
            for language in CELLS:
                assert sandbox.run_code("1 + 1", language=language).text == "2"
            update(server, sandbox, {"rules": rule("good.test", X_Key="v")})
            for language, cell in CELLS.items():
                done = sandbox.run_code(cell, language=language)
                assert done.error is None, done.error
                assert "".join(done.logs.stdout).strip() == "ok", language
    finally:
        server.clear()


def test_rules_outlive_pauses_crashes_and_forks(guest, keys, lab, server):
    with secret("lasting", "lasting-value", keys):
        rules = rule("good.test", X_Key=Secret.fill("lasting"))
        sandbox = guest(network={"rules": rules})

        def holds(one: Sandbox) -> bool:
            return fields(curl(one, "https://good.test/"), "x-key") == ["lasting-value"]

        assert holds(sandbox)
        own = sandbox.files.read(CA)
        server.crash()
        server.start(*flags(lab))
        assert holds(sandbox) and sandbox.files.read(CA) == own
        for memory in (True, False):
            with server.api() as api:
                path = f"/sandboxes/{sandbox.sandbox_id}/pause"
                assert api.post(path, json={"memory": memory}).status_code == 204
            sandbox = server.connect(sandbox.sandbox_id)
            assert holds(sandbox) and sandbox.files.read(CA) == own
        sandbox.commands.run("update-ca-certificates", user="root")
        assert holds(sandbox)
        with server.api() as api:
            answer = api.post(f"/sandboxes/{sandbox.sandbox_id}/fork", json={"count": 1})
        assert answer.status_code == 201, answer.text
        forked = server.connect(answer.json()[0]["sandbox"]["sandboxID"])
        try:
            assert holds(forked)
            assert forked.files.read(CA) != own
            # Of the two authorities it trusts its own only.
            bundle = forked.files.read("/etc/ssl/certs/ca-certificates.crt")
            assert forked.files.read(CA).strip() in bundle and own.strip() not in bundle
        finally:
            forked.kill()


def test_workload_tokens_say_which_sandbox_asks(guest, server):
    bearer = "Bearer ${e2b.identity.tokens.aws}"
    tokens = {"aws": Secret.iam_token(audience="sts.lab", token_type="JWT-SVID")}
    rules = {**rule("good.test", Authorization=bearer), **rule("other.test", X_Key=bearer.replace("aws", "nope"))}
    sandbox = guest(iam={"tokens": tokens}, network={"rules": rules})
    first, second = (fields(curl(sandbox, "https://good.test/"), "authorization") for _ in range(2))
    assert first != second, "each request has a fresh one"
    kind, token = first[0].split(" ")
    head, claims, signature = token.split(".")
    read = lambda part: json.loads(base64.urlsafe_b64decode(part + "=="))  # noqa: E731
    assert kind == "Bearer" and read(head)["alg"] == "ES256"
    claims = read(claims)
    assert claims["iss"] == "https://api.lab.test" and claims["aud"] == ["sts.lab"]
    assert claims["sub"].endswith(f"/sandbox/{sandbox.sandbox_id}")
    assert claims["exp"] - claims["iat"] == 300
    with server.api() as api:
        del api.headers["X-API-Key"]
        found = api.get("/.well-known/openid-configuration").json()
        assert found["issuer"] == claims["iss"]
        published = api.get("/.well-known/jwks.json").json()
        assert published["keys"][0]["kid"] == read(head)["kid"]
    status = sandbox.commands.run("curl -sS -o /dev/null -w '%{http_code}' https://other.test/")
    assert status.stdout == "502"
    told(server, sandbox, "for other.test: token nope: it does not exist")


def targets(lab: Lab) -> list[str]:
    return [entry["target"] for entry in lab.seen() if entry["kind"] == "socks"]


def test_a_proxy_gets_all_that_is_allowed_and_nothing_goes_around_it(guest, lab, server):
    login = {"username": "lab", "password": "proxy-password"}
    tls = {"server_name": "proxy.test", "ca_cert": lab.authority.read_text()}
    proxies = [{"address": "proxy.test:1080", **login}, {"address": f"{PROXY}:1443", "tls": tls, **login}]
    for proxy in proxies:
        start = len(targets(lab))
        network = {"deny_out": [ALL], "allow_out": ["good.test", OTHER], "egress_proxy": proxy}
        sandbox = guest(network={**network, "rules": rule("good.test", X_Key="v")})
        seen = curl(sandbox, "https://good.test/")
        assert seen["at"] == GOOD and fields(seen, "x-key") == ["v"]
        assert probe(sandbox, "tcp", OTHER, 22)[1].startswith("SSH-2.0")
        assert probe(sandbox, "tls", EVIL, "evil.test")[0] == "refused"
        assert probe(sandbox, "tcp", EVIL, 22)[0] == "refused"
        assert targets(lab)[start:] == ["good.test:443", f"{OTHER}:22"]
        shown = sandbox.get_info().network["egress_proxy"]
        assert shown["username"] == "lab" and "proxy-password" not in json.dumps(shown)
    wrong = {**proxies[0], "password": "wrong"}
    update(server, sandbox, {**network, "egress_proxy": wrong})
    assert probe(sandbox, "tcp", OTHER, 22)[0] == "refused"
    gone = {"address": f"{PROXY}:1"}
    update(server, sandbox, {"egress_proxy": gone})
    assert probe(sandbox, "tcp", OTHER, 22)[0] == "refused"
    told(server, sandbox, f"tcp {OTHER}:22: the egress proxy: ")
    update(server, sandbox, {})
    assert probe(sandbox, "tcp", OTHER, 22)[0] == "ok"


def test_proxies_out_of_reach_are_refused_before_anything_is_made(server):
    for proxy in (
        {"address": "10.0.0.1:1080"},
        {"address": "inside.test:1080"},
        {"address": "nowhere.test:1080"},
        {"address": "proxy.test:1080", "tls": {"ca_cert": "no certificate"}},
    ):
        with pytest.raises(SandboxException, match="Invalid egress proxy config: "):
            server.create(network={"egress_proxy": proxy})


def holders(root: Path, wanted: list[bytes]) -> set[tuple[str, bytes]]:
    """The files below a directory that hold one of the values. Holes are left out."""
    found = set()
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file():
                continue
            found |= {(str(path), value) for value in wanted if value in data_of(path)}
    return found


class data_of:
    """What is written of a sparse file, searched in parts that overlap."""

    def __init__(self, path: Path):
        self.path = path

    def __contains__(self, value: bytes) -> bool:
        with self.path.open("rb") as file:
            at, size = 0, os.fstat(file.fileno()).st_size
            while at < size:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    return False
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                tail = b""
                while at < end:
                    part = os.pread(file.fileno(), min(4 << 20, end - at), at)
                    if not part:
                        return False
                    if value in tail + part:
                        return True
                    tail, at = part[-len(value) :], at + len(part)
        return False


def inside(server_pid: int, sandbox: Sandbox) -> list[int]:
    """The processes of a sandbox as the host sees them."""
    mark = f"mark-{sandbox.sandbox_id}"
    sandbox.commands.run(f"exec -a {mark} sleep 600", background=True)

    def found():
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (path / "cmdline").read_bytes():
                    return os.readlink(path / "ns/pid")
            except OSError:
                continue
        return None

    until(lambda: found() is not None, "the marked process runs", 10)
    space = found()
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "ns/pid") == space:
                pids.append(int(path.name))
        except OSError:
            continue
    assert server_pid not in pids
    return pids


def in_memory(pid: int, value: bytes) -> bool:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in maps:
                words = line.split()
                if "r" not in words[1] or words[-1] in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                    continue
                start, end = (int(part, 16) for part in words[0].split("-"))
                try:
                    memory.seek(start)
                    if value in memory.read(end - start):
                        return True
                except (OSError, ValueError, OverflowError):
                    continue
    except (ProcessLookupError, FileNotFoundError):
        return False
    return False


def test_no_value_is_found_in_memory_disk_logs_snapshots_or_records(guest, keys, lab, server):
    value, canary = f"needle{uuid.uuid4().hex}", f"canary{uuid.uuid4().hex}"
    password = "proxy-password"
    with secret("searched", value, keys):
        proxy = {"address": "proxy.test:1080", "username": "lab", "password": password}
        rules = rule("good.test", Authorization=f"Bearer {Secret.fill('searched')}")
        sandbox = guest(network={"rules": rules, "egress_proxy": proxy}, envs={"CANARY": canary})
        # The same program holds the canary in its memory and makes the requests.
        program = """
import os, time, urllib.request
held = os.environ["CANARY"] * 2
open("/home/user/canary", "w").write(held)
os.sync()
while True:
    assert urllib.request.urlopen("https://good.test/quiet").read() == b"ok"
    assert urllib.request.urlopen("http://good.test/quiet").read() == b"ok"
    print("round", flush=True)
    time.sleep(0.2)
"""
        sandbox.files.write("/home/user/loop.py", program)
        sandbox.commands.run("python3 -u /home/user/loop.py >/tmp/rounds 2>&1", background=True)
        until(lambda: sandbox.files.exists("/tmp/rounds"), "it begins", 10)
        until(lambda: sandbox.files.read("/tmp/rounds").count("round") > 3, "some rounds", 20)
        pids = inside(server.process.pid, sandbox)
        assert any(in_memory(pid, canary.encode()) for pid in pids), "the search finds what is there"
        assert not any(in_memory(pid, value.encode()) for pid in pids)
        assert not any(in_memory(pid, password.encode()) for pid in pids)
        for pid in pids:
            assert value.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        with server.api() as api:
            path = f"/sandboxes/{sandbox.sandbox_id}"
            made = api.post(f"{path}/snapshots", json={}).json()
            assert value not in api.get(path).text and password not in api.get(path).text
        sandbox.pause()
        wanted = [value.encode(), password.encode(), canary.encode()]
        found = holders(server.data, wanted)
        assert {hit for _, hit in found} == {canary.encode()}, found
        log = server.log.read_text()
        assert value not in log and password not in log
        with server.api() as api:
            api.delete(f"/templates/{made['snapshotID']}")
    reached = [entry for entry in lab.reached(GOOD) if "/quiet" in entry.get("line", "")]
    assert any(value in entry["head"] for entry in reached), "it arrived where it should"
