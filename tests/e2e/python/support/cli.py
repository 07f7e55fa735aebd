"""The two command lines, the official one and the server's own, run alike."""

import os
import re
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl
from pathlib import Path

from support import env

OWN = env.optional("WARREN_BIN")
OFFICIAL = Path(__file__).parents[2] / "js/node_modules/@e2b/cli/dist/index.js"
SANDBOX_ID = re.compile(r"\bi[a-z0-9]{20}\b")


def in_raw_mode(settings: list) -> bool:
    """Whether a terminal passes on keys as they are typed."""
    return not settings[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


class Terminal:
    """A program on a terminal of ours."""

    def __init__(self, command, variables, rows=24, columns=80, **options):
        self.fd, self.tty = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.tty)

        def own_the_terminal():
            os.setsid()
            ioctl(0, termios.TIOCSCTTY, 0)

        streams = {"stdin": self.tty, "stdout": self.tty, "stderr": self.tty, **options}
        self.process = subprocess.Popen(
            command, env=variables, preexec_fn=own_the_terminal, **streams
        )
        self.seen = b""

    @property
    def settings(self):
        return termios.tcgetattr(self.tty)

    def resize(self, rows, columns):
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.fd, text)

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], max(0, seconds))
        if ready:
            self.seen += os.read(self.fd, 65536)
        return bool(ready)

    def until(self, pattern, limit=30):
        """Waits for output that matches, and forgets all up to it."""
        end = time.monotonic() + limit
        while not (found := re.search(pattern, self.seen)):
            assert self.read(end - time.monotonic()), f"no {pattern} in {self.seen}"
        self.seen = self.seen[found.end() :]
        return found

    def exit_code(self, limit=30):
        end = time.monotonic() + limit
        while (code := self.process.poll()) is None:
            assert time.monotonic() < end, f"still there: {self.seen}"
            self.read(0.1)
        while self.read(0):
            pass
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.tty)
        os.close(self.fd)


class Program:
    """One of the two, in a home of its own, with the suite's server and key."""

    def __init__(self, name, home):
        self.name = name
        self.home = home
        self.is_official = name == "official"
        self.command = ["node", str(OFFICIAL)] if self.is_official else [OWN]
        self.variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))},
            "HOME": str(home),
            "E2B_API_KEY": env.API_KEY,
            "E2B_API_URL": env.API_URL,
            "E2B_SANDBOX_URL": env.SANDBOX_URL,
            "NO_UPDATE_NOTIFIER": "1",
            "TZ": "UTC",
        }
        self.terminals = []

    def _environment(self, more):
        both = {**self.variables, **more}
        return {name: value for name, value in both.items() if value is not None}

    def run(self, *words, input=None, env=(), **options):
        """Runs it to its end. Without input its standard input is no pipe."""
        fed = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        is_text = not isinstance(input, bytes)
        return subprocess.run(
            [*self.command, *words],
            env=self._environment(dict(env)),
            timeout=150,
            **{"capture_output": True, "text": is_text, **fed, **options},
        )

    def ok(self, *words, **options):
        """Runs it, which must succeed; returns what it printed."""
        done = self.run(*words, **options)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def start(self, *words, env=(), **options):
        streams = {
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
        }
        return subprocess.Popen(
            [*self.command, *words], env=self._environment(dict(env)), **{**streams, **options}
        )

    def terminal(self, *words, env=(), **options):
        """Starts it on a terminal, which is closed after the test."""
        opened = Terminal([*self.command, *words], self._environment(dict(env)), **options)
        self.terminals.append(opened)
        return opened

    def close(self):
        for terminal in self.terminals:
            terminal.close()

