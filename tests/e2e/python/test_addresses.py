"""Clients that are told a domain and nothing else.

The server answers DNS for its domain itself; clients run in a mount namespace of their own
whose resolver asks it, so that nothing of the host is changed.
"""

import json
import os
import random
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from support.guest import WAIT
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
        #: Where an ACME service asks for names, and for what port 80 would answer.
        self.names = f"{self.dns}:53"
        self.challenges = free_port()
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


PYTHON_INTERPRETER = """
from e2b_code_interpreter import Sandbox
with Sandbox.create(timeout=60) as sandbox:
    context = sandbox.create_code_context(language="python")
    sandbox.run_code("x = 20", context=context)
    print(sandbox.run_code("x * 2 + 2", context=context).text)
"""

JS_INTERPRETER = """
import { Sandbox } from '@e2b/code-interpreter'
const sandbox = await Sandbox.create({ timeoutMs: 60000 })
const execution = await sandbox.runCode('6 * 7')
await sandbox.kill()
console.log(execution.text)
"""

BROWSER = """
import { chromium } from 'playwright-core'
const [program, url] = process.argv.slice(-2)
const browser = await chromium.launch({ executablePath: program, args: ['--no-sandbox'] })
try {
  const page = await browser.newPage()
  const answer = await page.goto(url)
  const security = await answer.securityDetails()
  const text = await page.evaluate(() => fetch('/f').then((found) => found.text()))
  const socket = await page.evaluate(() => window.isSecureContext)
  console.log(JSON.stringify({ status: answer.status(), issuer: security.issuer, text, socket }))
} finally {
  await browser.close()
}
"""


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


def test_both_code_interpreters_need_a_domain_and_a_key(named):
    named.start("--templates", "code-interpreter-v1", "--wait-templates")
    trust = named.authority
    assert named.run(sys.executable, "-c", PYTHON_INTERPRETER, trust=trust) == "42\n"
    client = ["node", "--input-type=module", "-e", JS_INTERPRETER]
    assert named.run(*client, trust=trust) == "42\n"


CHROMIUM = os.environ.get("WARREN_CHROMIUM") or shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_that_trusts_the_authority_opens_a_sandbox_by_name(named, tmp_path):
    named.start()
    # What `warren trust` does for the system, an administrator does for Chromium: a policy.
    pem = named.authority.read_text()
    lines = [line for line in pem.splitlines() if "CERTIFICATE" not in line]
    policies = tmp_path / "chromium/policies/managed"
    policies.mkdir(parents=True)
    (policies / "trust.json").write_text(json.dumps({"CACertificates": ["".join(lines)]}))
    with named.server.create() as sandbox:
        sandbox.files.write("/home/user/f", "kept")
        serving = "cd /home/user && exec python3 -m http.server 8123"
        sandbox.commands.run(serving, background=True)
        sandbox.commands.run(WAIT.format(port=8123))
        url = f"https://{sandbox.get_host(8123)}/"
        mounted = f"mount --bind {tmp_path / 'chromium'} /etc/chromium"
        client = ["node", "--input-type=module", "-e", BROWSER, "--", CHROMIUM, url]
        command = ["sh", "-c", f'{mounted} && exec "$@"', "sh", *client]
        said = named.run(*command, trust=named.authority)
    said = json.loads(said)
    assert said["status"] == 200 and said["text"] == "kept" and said["socket"] is True
    assert "Warren" in said["issuer"]


def test_certificates_of_the_operator_are_read_again_when_they_change(named, tmp_path):
    authority, certificate, key = (tmp_path / name for name in ("ca.pem", "own.pem", "own.key"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]

    def make(serial: int) -> None:
        names = f"subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN}"
        subprocess.run(
            ["openssl", "req", "-x509", *curve, "-subj", "/CN=own", "-set_serial", str(serial)]
            + ["-addext", names, "-keyout", tmp_path / "new.key", "-out", tmp_path / "new.pem"],
            check=True,
            capture_output=True,
        )
        (tmp_path / "new.pem").replace(certificate)
        authority.write_bytes(certificate.read_bytes())
        (tmp_path / "new.key").replace(key)

    def serial() -> int | None:
        try:
            return int(named.shown(f"3000-i1.{DOMAIN}", authority)["serialNumber"], 16)
        except ssl.SSLError:
            return None

    make(11)
    named.start("--tls-cert", str(certificate), "--tls-key", str(key))
    assert serial() == 11
    make(12)
    until(lambda: serial() == 12, "the new pair is shown", 30)
    # Half a pair is refused, and what was shown stays.
    key.write_text("no key")
    until(lambda: "keeping the certificate" in named.server.log.read_text(), "told", 30)
    assert serial() == 12


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
        "httpPort": named.challenges,
        "tlsPort": named.server.port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (service / "config.json").write_text(json.dumps({"pebble": settings}))
    with (service / "log").open("w") as log:
        process = subprocess.Popen(
            ["pebble", "-config", service / "config.json", "-dnsserver", named.names],
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


def test_names_can_be_proven_over_plain_http(named, pebble):
    flags, root = pebble
    named.start(*flags, "--acme-http-listen", f"127.0.0.1:{named.challenges}")
    assert eventually_shown(named, f"api.{DOMAIN}", root) == [f"api.{DOMAIN}", DOMAIN]
    # Whoever comes there otherwise is sent on.
    with httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{named.challenges}"
        answer = client.get(f"{url}/a?b=c", headers={"host": f"api.{DOMAIN}"})
        assert answer.status_code == 308
        assert answer.headers["location"] == f"https://api.{named.domain}/a?b=c"
        assert client.get(f"{url}/.well-known/acme-challenge/x").status_code == 404


class Records(socketserver.BaseRequestHandler):
    """A DNS provider: TXT records that are files, whose names are those of the records."""

    directory: Path

    def handle(self):
        query, answer_by = self.request
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode())
            at += 1 + size
        path = self.directory / ".".join(labels).lower()
        is_text = query[at + 1 : at + 3] == b"\0\x10"
        values = path.read_text().split() if is_text and path.exists() else []
        head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(values), 0, 0)
        records = b""
        for value in values:
            text = bytes([len(value)]) + value.encode()
            records += b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 1, len(text)) + text
        answer_by.sendto(head + query[12 : at + 5] + records, self.client_address)


@pytest.fixture
def provider(named, tmp_path):
    """A DNS provider and a program that changes its records."""
    records = tmp_path / "records"
    records.mkdir()
    handler = type("Handler", (Records,), {"directory": records})
    server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named.names = f"127.0.0.1:{server.server_address[1]}"
    hook = tmp_path / "hook"
    hook.write_text(
        f"#!/bin/sh\necho $1 >>{tmp_path}/calls\ncd {records}\n"
        'case $1 in present) echo "$3" >>"$2" ;; cleanup) rm -f "$2" ;; esac\n'
    )
    hook.chmod(0o755)
    yield hook
    server.shutdown()
    server.server_close()


def test_a_program_of_the_operator_proves_the_wildcard(named, provider, pebble, tmp_path):
    flags, root = pebble
    named.start(*flags, "--acme-dns-hook", str(provider))
    assert eventually_shown(named, f"3000-i1.{DOMAIN}", root) == [f"*.{DOMAIN}", DOMAIN]
    assert sorted((tmp_path / "calls").read_text().split()) == ["cleanup"] * 2 + ["present"] * 2
    assert list((tmp_path / "records").iterdir()) == []


def test_names_can_be_proven_on_the_port_itself(named, pebble):
    flags, root = pebble
    named.start(*flags, "--acme-tls-alpn")
    assert eventually_shown(named, f"api.{DOMAIN}", root) == [f"api.{DOMAIN}", DOMAIN]
