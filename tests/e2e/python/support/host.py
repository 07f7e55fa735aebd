"""What the host looks like from outside the sandboxes: listings to compare."""

import os
import socket
import subprocess
import threading
from pathlib import Path


def lines(*command: str) -> set[str]:
    """The lines a command prints; none when the program is not there."""
    try:
        return set(subprocess.run(command, capture_output=True, text=True).stdout.splitlines())
    except FileNotFoundError:
        return set()


def addresses() -> list[str]:
    """Every IPv4 and global IPv6 address of the host."""
    found = []
    for line in lines("ip", "-o", "addr", "show"):
        fields = line.split()
        address = fields[3].partition("/")[0]
        if not address.startswith("fe80") and address != "::1":
            found.append(address)
    return sorted(set(found))


def cgroups() -> set[str]:
    """Our directories, and all below them, in every cgroup hierarchy."""
    found: set[str] = set()
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]:
        for top in hierarchy.glob("*warren*/"):
            # os.walk passes over directories that vanish while it looks.
            found |= {directory for directory, _, _ in os.walk(top)}
    return found


def namespaces() -> set[str]:
    """Network namespaces that any process is in."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(os.readlink(entry))
        except OSError:
            continue
    return found


def snapshot() -> dict[str, set[str]]:
    """Everything a sandbox could leave behind on the host."""
    return {
        "mounts": set(Path("/proc/mounts").read_text().splitlines()),
        "links": {line.split(":")[1].strip() for line in lines("ip", "-o", "link")},
        "netns": lines("ip", "netns") | namespaces(),
        "loops": lines("losetup", "-ln", "-O", "NAME,BACK-FILE"),
        "cgroups": cgroups(),
    }


def left(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not before."""
    return {kind: after[kind] - before[kind] for kind in before if after[kind] - before[kind]}


def processes_naming(text: str) -> list[int]:
    """Processes whose command line contains a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


class Listener:
    """A listener on all addresses of the host that counts who reached it."""

    def __enter__(self):
        self.reached: list[str] = []
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        while True:
            try:
                peer, address = self._socket.accept()
            except OSError:
                return
            self.reached.append(address[0])
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhost-port")
            peer.close()

    def __exit__(self, *_):
        self._socket.close()
