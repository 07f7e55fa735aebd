"""A fake internet in a network namespace: names, web servers, datagrams, and an attacker.

Its addresses are of a range that is kept for documentation, which the host reaches by a
link to the namespace. Every server tells its log what reached it.
"""

import json
import subprocess
import sys
from pathlib import Path

from support.wait import until

NETNS = "wrlab"
LINK = "wrlab0"
HOST = "203.0.113.254"
RESOLVER = "203.0.113.53"
#: Whoever controls the sandbox runs these two.
EVIL = "203.0.113.66"
TUNNEL = "203.0.113.77"
GOOD = "203.0.113.1"
WILD = "203.0.113.2"
OTHER = "203.0.113.3"
#: Speaks HTTP/2 as well.
MODERN = "203.0.113.4"
#: A SOCKS5 proxy is at port 1080, the same behind TLS at 1443.
PROXY = "203.0.113.9"
NAMES = {
    "good.test": GOOD,
    "a.wild.test": WILD,
    "b.a.wild.test": WILD,
    "wild.test": OTHER,
    "other.test": OTHER,
    "evil.test": EVIL,
    "proxy.test": PROXY,
    "modern.test": MODERN,
    # Names of sandboxes, where a server listens on the host's own address.
    "*.sandboxes.test": HOST,
    "inside.test": "10.0.0.1",
    "loop.test": "127.0.0.1",
}
ADDRESSES = sorted({GOOD, WILD, OTHER, MODERN, EVIL, PROXY, RESOLVER, TUNNEL})


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


class Lab:
    """The namespace and its servers."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.log = directory / "lab.jsonl"
        self.server: subprocess.Popen | None = None

    def __enter__(self) -> "Lab":
        self._remove()
        ip("netns", "add", NETNS)
        ip("link", "add", LINK, "type", "veth", "peer", "name", "lab0", "netns", NETNS)
        ip("addr", "add", f"{HOST}/24", "dev", LINK)
        ip("link", "set", LINK, "up")
        ip("-n", NETNS, "link", "set", "lo", "up")
        ip("-n", NETNS, "link", "set", "lab0", "up")
        for address in ADDRESSES:
            ip("-n", NETNS, "addr", "add", f"{address}/24", "dev", "lab0")
        self._certificates()
        settings = {"names": NAMES, "addresses": ADDRESSES, "modern": MODERN, "directory": str(self.directory)}
        program = Path(__file__).with_name("lab_servers.py")
        command = ["ip", "netns", "exec", NETNS, sys.executable, str(program)]
        self.server = subprocess.Popen([*command, json.dumps(settings)])
        until(self._is_up, "the lab serves", 20)
        return self

    def _is_up(self) -> bool:
        assert self.server.poll() is None, "the lab's servers ended"
        return (self.directory / "ready").exists()

    def _certificates(self) -> None:
        """A public authority, and what it certifies for all names but evil.test."""

        def openssl(*words):
            subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=self.directory)

        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl(
            *["req", "-x509", *curve, "-days", "2", "-subj", "/CN=lab authority"],
            *["-keyout", "ca-key.pem", "-out", "ca.pem"],
        )
        openssl("req", *curve, "-subj", "/CN=lab", "-keyout", "key.pem", "-out", "lab.csr")
        names = ",".join(f"DNS:{name}" for name in NAMES if name != "evil.test")
        (self.directory / "lab.ext").write_text(f"subjectAltName={names}\n")
        openssl(
            *["x509", "-req", "-in", "lab.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem"],
            *["-CAcreateserial", "-days", "2", "-extfile", "lab.ext", "-out", "cert.pem"],
        )

    @property
    def authority(self) -> Path:
        """The certificate of the lab's public authority."""
        return self.directory / "ca.pem"

    def _remove(self) -> None:
        ip("link", "del", LINK, check=False)
        ip("netns", "del", NETNS, check=False)

    def __exit__(self, *_) -> None:
        if self.server:
            self.server.kill()
            self.server.wait(10)
        self._remove()

    def seen(self) -> list[dict]:
        """What reached the servers so far."""
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def reached(self, address: str) -> list[dict]:
        return [entry for entry in self.seen() if entry["at"] == address]

    def asked(self, server: str = RESOLVER) -> list[str]:
        """The names that a resolver was asked for."""
        return [entry["name"] for entry in self.reached(server) if entry["kind"] == "dns"]
