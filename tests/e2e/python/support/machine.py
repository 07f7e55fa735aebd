"""A machine without a toolchain: a small Debian in mount and process namespaces of its own.

The network and the control groups are those of the host, so clients reach a server in it,
and so do tests that look for what it left.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

from support.server import free_port
from support.wait import until

# What the Debian package depends on.
PACKAGES = ["nftables", "e2fsprogs", "xfsprogs", "ca-certificates"]
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Runs as the first process, below unshare: $1 is the root, the others are pairs of what is
# bound where. A new root by pivot_root, since user namespaces can't be made below chroot.
INIT = r"""
set -eu
root=$1; shift
ip link set lo up
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -p /run/warren
while [ $# -gt 0 ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    shift 2
done
cd "$root"
pivot_root . mnt
exec chroot . sh -c 'umount -l /mnt; touch /run/booted; while :; do sleep 1; done'
"""


def _suite() -> str:
    """The release of the host, if it is Debian's: what was built here runs on it."""
    facts = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    return facts["VERSION_CODENAME"] if facts.get("ID") == "debian" else "bookworm"


def debian() -> Path:
    """The root of a small Debian, made once and kept in the cache."""
    suite = _suite()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "warren/machines"
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(" ".join([suite, *PACKAGES]).encode()).hexdigest()[:16]
    root = cache / f"{suite}-{digest}"
    with (cache / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            draft = cache / f"{root.name}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet"]
            command += ["--skip=output/dev,output/mknod", f"--include={','.join(PACKAGES)}"]
            command += [suite, str(draft), f"deb [signed-by={KEYRING}] {MIRROR} {suite} main"]
            subprocess.run(command, check=True, timeout=600, stdin=subprocess.DEVNULL)
            draft.rename(root)
    return root


def _children(pid: int) -> str:
    """Numbers of the processes that a process started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()


class Machine:
    """One machine, started when it is made. What is written to its disk is in `disk`."""

    def __init__(self, directory: Path, *, network: bool = True, layers: Path | None = None):
        self.directory = directory
        self.disk = directory / "disk"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Everything that a server has on the host is named after its data directory.
        self.data = f"/srv/{uuid.uuid4().hex[:12]}"
        self.log = directory / "server.log"
        self.server: subprocess.Popen | None = None
        root, work = directory / "root", directory / "work"
        for place in (self.disk, root, work):
            place.mkdir(parents=True)
        # The server's files are not on an overlay.
        (directory / "srv").mkdir()
        bound = ["/run/warren", "/run/warren", str(directory / "srv"), "/srv"]
        if layers:
            bound += [str(layers), "/layers"]
        overlay = f"lowerdir={debian()},upperdir={self.disk},workdir={work}"
        script = f'mount -t overlay overlay -o "{overlay}" "$1"\n{INIT}'
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
        unshare += ["--propagation", "private", *([] if network else ["--net"])]
        command = [*unshare, "sh", "-c", script, "sh", str(root), *bound]
        self._outside = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._inside = until(self._first_process, "the machine's first process")
        until(lambda: self.ran("test", "-e", "/run/booted"), "the machine is up", 30)

    def _first_process(self) -> str:
        assert self._outside.poll() is None, "the machine did not start"
        return _children(self._outside.pid)

    def _within(self, words: tuple) -> list[str]:
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ["nsenter", "--target", self._inside, "--mount", "--pid", "--net"]
        clean = ["env", "-i", path, "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        return [*enter, *clean, *map(str, words)]

    def _do(self, words: tuple, seconds: float, stdin="/dev/null") -> subprocess.CompletedProcess:
        with open(stdin, "rb") as given:
            return subprocess.run(
                self._within(words),
                capture_output=True,
                text=True,
                timeout=seconds,
                stdin=given,
                cwd="/",
            )

    def run(self, *words, seconds: float = 100, stdin="/dev/null") -> str:
        """Runs a program, which must succeed, and returns what it writes."""
        done = self._do(words, seconds, stdin)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def ran(self, *words) -> bool:
        """Whether a program succeeds."""
        return self._do(words, 100).returncode == 0

    def fails(self, *words) -> str:
        """Runs a program, which must fail, and returns what it says."""
        done = self._do(words, 100)
        assert done.returncode != 0, f"{words}: {done.stdout}"
        return done.stderr

    def up(self, program: str, *flags: str, seconds: float = 60) -> None:
        """Starts a server and returns when it answers."""
        words = (program, "up", "--data-dir", self.data, "--listen", f"127.0.0.1:{self.port}")
        words += ("--templates", "none", "--no-prepare-tools", "--warm", "1", "--slots", "2", *flags)
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(self._within(words), stdout=log, stderr=log, cwd="/")
        until(self._answers, f"the server answers; see {self.log}", seconds)

    def _answers(self) -> bool:
        assert self.server.poll() is None, self.log.read_text()[-3000:]
        knock = f": </dev/tcp/127.0.0.1/{self.port}"
        return self.ran("test", "-s", f"{self.data}/api-key") and self.ran("bash", "-c", knock)

    def signal(self, number: int) -> int:
        """Sends a signal to the server and returns its exit code."""
        # nsenter passes none on to the program that it waits for.
        os.kill(int(_children(self.server.pid)), number)
        return self.server.wait(60)

    def down(self) -> int:
        """Asks the server to stop and returns its exit code."""
        return self.signal(signal.SIGTERM)

    @property
    def options(self) -> dict[str, str]:
        """What the SDK needs to talk to the server."""
        key = self.run("cat", f"{self.data}/api-key").strip()
        return {"api_key": key, "api_url": self.url, "sandbox_url": self.url}

    def close(self) -> None:
        """Switches it off."""
        self._outside.kill()
        self._outside.wait(10)
