"""The program's own commands for sandboxes, as a person at a terminal uses them."""

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from fcntl import ioctl

import pytest

WARREN = os.environ.get("WARREN_BIN")

pytestmark = pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program")


def warren(*words, **options):
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [WARREN, "sandbox", *words], capture_output=True, timeout=60, **options
    )


@pytest.fixture
def sandbox():
    made = warren("create", "-d")
    assert made.returncode == 0, made.stderr
    sandbox_id = made.stdout.decode().strip()
    assert re.fullmatch(r"i[a-z0-9]{20}", sandbox_id)
    yield sandbox_id
    warren("kill", sandbox_id)


class Terminal:
    """A program on a terminal of ours."""

    def __init__(self, *words, rows=24, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(WARREN, [WARREN, "sandbox", *words])
        self.seen = b""
        self.resize(rows, columns)

    def resize(self, rows, columns):
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.fd, text)

    def until(self, pattern, limit=20):
        """Waits for output that matches, and forgets all up to it."""
        end = time.monotonic() + limit
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern} in {self.seen}"
            self.seen += os.read(self.fd, 65536)
        self.seen = self.seen[found.end() :]
        return found

    def exit_code(self, limit=20):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            ready, _, _ = select.select([self.fd], [], [], 0.1)
            if ready:
                try:
                    self.seen += os.read(self.fd, 65536)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = None
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still there: {self.seen}")

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal():
    opened = []

    def start(*words, **options):
        opened.append(Terminal(*words, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_sandbox_is_listed_described_and_killed(sandbox):
    listed = json.loads(warren("list", "-f", "json", "-l", "0").stdout)
    assert sandbox in [one["sandboxID"] for one in listed]
    table = warren("ls", "-s", "running", "-l", "0").stdout.decode()
    assert table.startswith("SANDBOX ID") and sandbox in table
    described = json.loads(warren("info", sandbox, "-f", "json").stdout)
    assert described["state"] == "running"
    assert "envdAccessToken" not in described
    killed = warren("kill", sandbox, "inosuchsandbox0000000")
    assert killed.returncode == 0
    assert killed.stdout.decode() == f"Sandbox {sandbox} has been killed\n"
    assert b"inosuchsandbox0000000 wasn't found" in killed.stderr
    gone = warren("info", sandbox)
    assert (gone.returncode, gone.stderr.decode()) == (1, f"error: Sandbox {sandbox} wasn't found\n")


@pytest.mark.parametrize(
    "words",
    [
        ["kill"],
        ["kill", "-a", "x"],
        ["create", "-d", "--timeout", "5"],
        ["create", "-d", "no-such-template"],
        ["create", "-d", "--lifecycle.autoresume"],
        ["create"],
        ["exec", "x"],
        ["exec", "inosuchsandbox0000000", "ls"],
    ],
)
def test_what_can_not_be_done_is_told_with_exit_code_1(words):
    refused = warren(*words)
    assert refused.returncode == 1
    assert refused.stdout == b""
    assert refused.stderr.startswith(b"error: ")


def test_exec_keeps_words_streams_and_exit_codes(sandbox):
    assert warren("exec", sandbox, "echo $((1+1))").stdout == b"2\n"
    assert warren("exec", sandbox, "echo", "a b", "$HOME").stdout == b"a b $HOME\n"
    assert warren("exec", sandbox, "--", "sh", "-lc", "exit 7").returncode == 7
    both = warren("exec", sandbox, "echo out; echo err >&2")
    assert (both.stdout, both.stderr) == (b"out\n", b"err\n")
    assert warren("exec", "-u", "root", sandbox, "whoami").stdout == b"root\n"
    assert warren("exec", "-c", "/tmp", sandbox, "pwd").stdout == b"/tmp\n"
    assert warren("exec", "-e", "A=x=y", sandbox, "printenv", "A").stdout == b"x=y\n"
    assert len(warren("exec", sandbox, "head -c 10000000 /dev/zero").stdout) == 10_000_000


def test_exec_delivers_piped_input(sandbox):
    data = os.urandom(1_000_000)
    local = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True)
    assert warren("exec", sandbox, "sha256sum", input=data, stdin=None).stdout == local.stdout
    assert warren("exec", sandbox, "wc", "-c", input=b"", stdin=None).stdout == b"0\n"
    early = warren("exec", sandbox, "head", "-c", "1", input=data * 20, stdin=None)
    assert (early.returncode, len(early.stdout)) == (0, 1)
    assert b"before stdin could be delivered" in early.stderr


def test_exec_in_the_background_and_an_interrupt(sandbox):
    started = warren("exec", "-b", sandbox, "sleep", "1001")
    assert (started.returncode, started.stdout) == (0, b"")
    pid = int(started.stderr)
    assert warren("exec", sandbox, f"ps -o args= -p {pid}").stdout == b"sleep 1001\n"
    running = subprocess.Popen(
        [WARREN, "sandbox", "exec", sandbox, "echo up; exec sleep 1002"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout.readline() == b"up\n"
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)
    assert running.returncode == 1
    assert warren("exec", sandbox, "pgrep -fx 'sleep 1002'").returncode == 1


def test_logs_and_metrics_are_shown(sandbox):
    warren("exec", sandbox, "echo hello")
    end = time.monotonic() + 20
    while "process ended" not in (shown := warren("logs", sandbox).stdout.decode()):
        assert time.monotonic() < end, shown
        time.sleep(0.2)
    lines = warren("logs", sandbox, "--format", "json", "--loggers", "process").stdout
    records = [json.loads(line) for line in lines.splitlines()]
    assert records and all(one["fields"]["logger"] == "process" for one in records)
    while not (samples := warren("metrics", sandbox).stdout.decode()):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert re.match(r"\[.*Z\]  CPU: .*% / +2 Cores \| Memory: ", samples)


def test_followed_logs_end_with_the_sandbox(sandbox):
    following = subprocess.Popen(
        [WARREN, "sandbox", "logs", "-f", sandbox], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for number in range(5):
        warren("exec", sandbox, f"echo {number}")
    warren("kill", sandbox)
    out, err = following.communicate(timeout=30)
    lines = out.decode().splitlines()
    assert len(lines) == len(set(lines))
    assert sum("process started" in line for line in lines) == 5
    assert "sandbox is closed" in err.decode()


def test_a_shell_of_a_new_sandbox_has_size_signals_and_a_clean_end(terminal):
    shell = terminal("create", rows=33, columns=101)
    sandbox = shell.until(rb"sandbox ID (\w+)").group(1).decode()
    shell.until(rb"\$ ")
    shell.type(b"stty size; whoami; pwd\r")
    shell.until(rb"33 101\r\nuser\r\n/home/user\r\n")
    shell.resize(44, 122)
    end = time.monotonic() + 10
    while True:
        shell.type(b"echo size=$(stty size)\r")
        if shell.until(rb"size=(\d+ \d+)").group(1) == b"44 122":
            break
        assert time.monotonic() < end
    shell.type(b"sh -c 'echo slee''ping; exec sleep 100'\r")
    shell.until(rb"sleeping")
    shell.type(b"\x03")
    shell.until(rb"\$ ")
    shell.type(b"echo code=$?\r")
    shell.until(rb"code=130")
    shell.type(b"exit\r")
    assert shell.exit_code() == 0
    end = time.monotonic() + 20
    while warren("info", sandbox).returncode == 0:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_shells_of_one_sandbox_are_independent_and_leave_it_running(sandbox, terminal):
    one = terminal("connect", sandbox, "-u", "root", "-c", "/")
    two = terminal("connect", sandbox)
    one.until(rb"# ")
    two.until(rb"\$ ")
    one.type(b"echo one=$(whoami):$PWD\r")
    one.until(rb"one=root:/\r")
    two.type(b"echo two=$(whoami)\r")
    two.until(rb"two=user")
    one.type(b"exit\r")
    assert one.exit_code() == 0
    two.type(b"echo still=here\r")
    two.until(rb"still=here\r\n")
    two.type(b"exit 3\r")
    assert two.exit_code() == 1
    assert warren("info", sandbox).returncode == 0


def test_exec_on_a_terminal(sandbox, terminal):
    program = terminal("exec", "-t", sandbox, "test -t 0 && stty size; exit 5", rows=20, columns=70)
    program.until(rb"20 70")
    assert program.exit_code() == 5
