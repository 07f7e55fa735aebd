"""Clients that are told a domain and nothing else.

The server answers DNS for its domain itself; clients run in a mount namespace of their own
whose resolver asks it, so that nothing of the host is changed.
"""

import json
import os
import random
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import Server, free_port
from support.wait import until

pytestmark = pytest.mark.timeout(180)

JS = Path(__file__).parents[1] / "js"
DOMAIN = "warren.test"

PYTHON_CLIENT = """
import e2b, httpx
from e2b import Sandbox
sandbox = Sandbox.create(timeout=60)
assert sandbox.commands.run("echo hi").stdout == "hi\\n"
sandbox.files.write("/home/user/f", "kept")
assert sandbox.files.read("/home/user/f") == "kept"
server = sandbox.commands.run(
    "cd /home/user && exec python3 -m http.server 8123", background=True
)
for _ in range(100):
    if "8123" in sandbox.commands.run("ss -ltn").stdout:
        break
host = sandbox.get_host(8123)
import os, ssl
trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
answer = httpx.Client(http2=True, verify=trust).get(f"https://{host}/f")
assert answer.text == "kept" and answer.http_version == "HTTP/2", (answer, answer.http_version)
assert sandbox.kill()
print("done", host)
"""

JS_CLIENT = """
import { Sandbox } from 'e2b'
const sandbox = await Sandbox.create({ timeoutMs: 60000 })
const { stdout } = await sandbox.commands.run('echo hi')
await sandbox.files.write('/home/user/f', 'kept')
const text = await sandbox.files.read('/home/user/f')
await sandbox.kill()
console.log(JSON.stringify({ stdout, text, host: sandbox.getHost(80) }))
"""


class Named:
    """A server with a domain, and clients that find it by name only."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.server = Server(directory)
        # Every address below 127 is this machine's; port 53 of one that nobody uses.
        self.dns = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        self.domain = f"{DOMAIN}:{self.server.port}"
        self.resolver = directory / "resolv.conf"
        self.resolver.write_text(f"nameserver {self.dns}\noptions timeout:2 attempts:2\n")

    def start(self, *flags: str) -> None:
        names = ["--domain", self.domain, "--dns-listen", f"{self.dns}:53"]
        self.server.start("--warm", "1", *names, *flags)

    def run(self, *command, trust: Path, **env: str) -> str:
        """What a client prints that runs with these names."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))}
        named = {"E2B_DOMAIN": self.domain, "E2B_API_KEY": self.server.key}
        trusted = {"SSL_CERT_FILE": str(trust), "NODE_EXTRA_CA_CERTS": str(trust)}
        enter = f'mount --bind {self.resolver} /etc/resolv.conf && exec "$@"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", enter, "sh", *map(str, command)],
            env={**plain, **named, **trusted, **env},
            cwd=JS,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def authority(self) -> Path:
        return self.server.data / "tls" / DOMAIN / "ca.crt"

    def shown(self, name: str, trust: Path) -> dict:
        """The certificate that the server shows for a name, as far as it can be trusted."""
        context = ssl.create_default_context(cafile=trust)
        with socket.create_connection(("127.0.0.1", self.server.port), 5) as plain:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                return tls.getpeercert()


@pytest.fixture
def named(tmp_path):
    named = Named(tmp_path)
    yield named
    named.server.clear()


@pytest.mark.parametrize("http_version", ["1.1", "2"])
def test_the_python_client_needs_a_domain_and_a_key(named, http_version):
    named.start()
    said = named.run(
        sys.executable, "-c", PYTHON_CLIENT, trust=named.authority, E2B_HTTP_VERSION=http_version
    )
    assert said.startswith("done 8123-i") and said.strip().endswith(named.domain)


def test_the_javascript_client_needs_a_domain_and_a_key(named):
    named.start()
    client = ["node", "--input-type=module", "-e", JS_CLIENT]
    said = json.loads(named.run(*client, trust=named.authority))
    assert said["stdout"] == "hi\n" and said["text"] == "kept"
    assert said["host"].endswith(named.domain)


def test_the_authority_has_no_say_over_other_names(named):
    named.start()
    assert named.shown(f"3000-i123.{DOMAIN}", named.authority)
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", named.authority],
        capture_output=True,
        text=True,
    ).stdout
    assert f"Permitted:\n                  DNS:{DOMAIN}" in text, text
    with pytest.raises(ssl.SSLCertVerificationError):
        named.shown("elsewhere.example", named.authority)


def test_trust_says_what_it_would_do(named):
    named.start()
    command = [named.server.binary, "trust", "--data-dir", named.server.data, "--dry-run"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert f"trust {named.authority} for {DOMAIN}" in said.stdout
    assert "run update-ca-certificates" in said.stdout
    assert f"export NODE_EXTRA_CA_CERTS={named.authority}" in said.stdout


@pytest.fixture
def pebble(tmp_path, named):
    """An ACME service that asks the server's own name server."""
    service = tmp_path / "pebble"
    service.mkdir()
    make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    subprocess.run(
        ["openssl", *make.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-addext", "basicConstraints=critical,CA:FALSE"]
        + ["-keyout", service / "key.pem", "-out", service / "cert.pem"],
        check=True,
        capture_output=True,
    )
    port, management = free_port(), free_port()
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(service / "cert.pem"),
        "privateKey": str(service / "key.pem"),
        "httpPort": 5002,
        "tlsPort": named.server.port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (service / "config.json").write_text(json.dumps({"pebble": settings}))
    with (service / "log").open("w") as log:
        process = subprocess.Popen(
            ["pebble", "-config", service / "config.json", "-dnsserver", f"{named.dns}:53"],
            # Nonces that are refused at random are part of its test; challenges at once.
            env={**os.environ, "PEBBLE_VA_NOSLEEP": "1"},
            stdout=log,
            stderr=log,
        )
    context = ssl.create_default_context(cafile=service / "cert.pem")

    def authority() -> Path | None:
        import urllib.request

        try:
            url = f"https://127.0.0.1:{management}/roots/0"
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                (service / "root.pem").write_bytes(answer.read())
                return service / "root.pem"
        except OSError:
            return None

    root = until(authority, f"pebble answers; see {service / 'log'}", 30)
    flags = ["--acme", "--acme-directory", f"https://127.0.0.1:{port}/dir"]
    yield [*flags, "--acme-root", str(service / "cert.pem")], root
    process.kill()
    process.wait(10)


def eventually_shown(named, name: str, root: Path) -> list[str]:
    def names():
        try:
            shown = named.shown(name, root)
        except (OSError, ssl.SSLError):
            return None
        return sorted(value for _, value in shown["subjectAltName"])

    return until(names, f"a certificate for {name}; see {named.server.log}", 60, 0.5)


def test_a_certificate_with_a_wildcard_comes_from_an_acme_service(named, pebble):
    flags, root = pebble
    named.start(*flags)
    assert eventually_shown(named, f"3000-i1.{DOMAIN}", root) == [f"*.{DOMAIN}", DOMAIN]
    kept = named.server.data / "acme" / DOMAIN / "certificate.pem"
    assert kept.stat().st_mode & 0o777 == 0o600
    # It is kept: the next start shows it although the service is asked nothing.
    before = named.shown(DOMAIN, root)["serialNumber"]
    named.server.stop()
    named.start(*flags)
    eventually_shown(named, DOMAIN, root)
    assert named.shown(DOMAIN, root)["serialNumber"] == before


def test_names_can_be_proven_on_the_port_itself(named, pebble):
    flags, root = pebble
    named.start(*flags, "--acme-tls-alpn")
    assert eventually_shown(named, f"api.{DOMAIN}", root) == [f"api.{DOMAIN}", DOMAIN]
