"""The command lines on a terminal, the official one and the server's own. Numbers are those of
the contract's checks."""

import hashlib
import os
import re
import signal
import time
import uuid
from datetime import UTC, datetime

import pytest

from support.cli import OFFICIAL, OWN, Program, in_raw_mode
from support.server import Server
from support.wait import until

pytestmark = pytest.mark.skipif(
    OWN is None or not OFFICIAL.exists(), reason="the programs are not there: use the runner"
)


@pytest.fixture(params=["official", "own"])
def cli(request, tmp_path):
    program = Program(request.param, tmp_path)
    yield program
    program.close()


@pytest.fixture
def own(tmp_path):
    program = Program("own", tmp_path)
    yield program
    program.close()


def prompt(shell):
    shell.until(rb"\$ ")


def follows_a_resize(shell, rows, columns):
    """Waits until the terminal inside has the size of the one outside."""
    shell.resize(rows, columns)
    wanted = f"{rows} {columns}".encode()
    end = time.monotonic() + 20
    while True:
        shell.type(b"echo size=$(stty size)\r")
        if shell.until(rb"size=(\d+ \d+)").group(1) == wanted:
            return
        assert time.monotonic() < end


def test_41_a_shell_in_a_new_sandbox(cli, api):
    label = uuid.uuid4().hex
    shell = cli.terminal("sandbox", "create", "-e", f"RUN={label}", rows=33, columns=101)
    prompt(shell)
    assert in_raw_mode(shell.settings)
    shell.type(b"echo id=$(hostname):$RUN:$(whoami):$PWD:$(tput colors)\r")
    told = shell.until(rb"id=(\S+):(\S+):user:/home/user:256\r+\n")
    assert told.group(2).decode() == label
    shell.type(b"printf '\\033[31mred\\033[0m%s\\n' end\r")
    shell.until(rb"\x1b\[31mred\x1b\[0mend")
    shell.type(b"stty size\r")
    shell.until(rb"33 101\r+\n")
    follows_a_resize(shell, 44, 122)
    shell.type(b"echo $E2B_SANDBOX_ID=sandbox\r")
    sandbox = shell.until(rb"(i[a-z0-9]{20})=sandbox\r+\n").group(1).decode()
    shell.type(b"sh -c 'echo slee''ping; exec sleep 100'\r")
    shell.until(rb"sleeping\r+\n")
    shell.type(b"\x03")
    prompt(shell)
    shell.type(b"echo code=$?\r")
    shell.until(rb"code=130\r+\n")
    # Keys that a terminal of ours would keep to itself.
    shell.type(b"echo cat''ting; cat -v\r")
    shell.until(rb"catting\r+\n")
    shell.type(b"\x16\x1a\x16\x13\x16\x11\r")
    shell.until(rb"\n\^Z\^S\^Q\r+\n")
    shell.type(b"\x04")
    shell.type(b"exit\r")
    assert shell.exit_code() == 0
    assert shell.settings == shell.before
    until(lambda: api.get(f"/sandboxes/{sandbox}").status_code == 404, "the sandbox is gone", 30)


def test_41_a_shell_that_fails_is_told_by_the_exit_code(cli):
    shell = cli.terminal("sandbox", "create")
    prompt(shell)
    shell.type(b"exit 3\r")
    assert shell.exit_code() == 1
    assert shell.settings == shell.before


def seconds_left(api, sandbox):
    end = datetime.fromisoformat(api.get(f"/sandboxes/{sandbox}").json()["endAt"].replace("Z", "+00:00"))
    return (end - datetime.now(UTC)).total_seconds()


def test_42_a_client_that_is_killed_leaves_no_sandbox(api, tmp_path):
    shells, programs = {}, [Program("official", tmp_path), Program("own", tmp_path)]
    try:
        for cli in programs:
            shell = cli.terminal("sandbox", "create")
            prompt(shell)
            shell.type(b"echo $E2B_SANDBOX_ID=sandbox\r")
            sandbox = shell.until(rb"(i[a-z0-9]{20})=sandbox\r+\n").group(1).decode()
            shells[sandbox] = shell
        for sandbox in shells:
            # The official program renews the first time after some seconds.
            until(lambda: seconds_left(api, sandbox) < 60, "the time is renewed")  # noqa: B023
        for shell in shells.values():
            shell.process.send_signal(signal.SIGKILL)
        for sandbox in shells:
            gone = lambda: api.get(f"/sandboxes/{sandbox}").status_code == 404  # noqa: B023, E731
            until(gone, f"{sandbox} is gone", 45, pause=0.5)
    finally:
        for cli in programs:
            cli.close()


def test_43_shells_of_one_sandbox_are_independent(cli, create, api):
    sandbox = create({"timeout": 120})["sandboxID"]
    one = cli.terminal("sandbox", "connect", sandbox, "-u", "root", "-c", "/")
    two = cli.terminal("sandbox", "connect", sandbox, "-e", "MINE=two")
    one.until(rb"# ")
    prompt(two)
    one.type(b"echo one=$(whoami):$PWD:$MINE\r")
    one.until(rb"one=root:/:\r+\n")
    two.type(b"echo two=$(whoami):$MINE\r")
    two.until(rb"two=user:two\r+\n")
    one.type(b"exit\r")
    assert one.exit_code() == 0
    two.type(b"echo still=here\r")
    two.until(rb"still=here\r+\n")
    two.type(b"exit\r")
    assert two.exit_code() == 0
    assert api.get(f"/sandboxes/{sandbox}").json()["state"] == "running"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_43_a_shell_that_was_idle_for_ten_minutes_goes_on(create, tmp_path):
    sandbox = create({"timeout": 1200})["sandboxID"]
    programs = [Program("official", tmp_path), Program("own", tmp_path)]
    shells = [cli.terminal("sandbox", "connect", sandbox) for cli in programs]
    try:
        for shell in shells:
            prompt(shell)
        time.sleep(605)
        for shell in shells:
            shell.type(b"echo a$((1+1))b\r")
            shell.until(rb"a2b")
            shell.type(b"exit\r")
            assert shell.exit_code() == 0
    finally:
        for cli in programs:
            cli.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_terminal_is_as_before_when_the_program_is_told_to_end(own, create, number):
    sandbox = create({"timeout": 120})["sandboxID"]
    shell = own.terminal("sandbox", "connect", sandbox)
    prompt(shell)
    shell.type(b"echo pid=$$; exec sleep 8181\r")
    shell.until(rb"pid=\d+")
    assert in_raw_mode(shell.settings)
    shell.process.send_signal(number)
    assert shell.exit_code() == 1
    assert shell.settings == shell.before
    # What ran on the terminal ends with it, as when a connection of SSH is closed.
    left = lambda: own.run("sandbox", "exec", sandbox, "pgrep -fx 'sleep 8181'").returncode  # noqa: E731
    until(lambda: left() == 1, "the shell inside has ended")


def test_the_terminal_is_as_before_when_the_sandbox_is_killed(cli, create, api):
    sandbox = create({"timeout": 120})["sandboxID"]
    shell = cli.terminal("sandbox", "connect", sandbox)
    prompt(shell)
    api.delete(f"/sandboxes/{sandbox}")
    assert shell.exit_code() in ([0, 1] if cli.is_official else [1])
    assert shell.settings == shell.before


@pytest.mark.alone
def test_the_terminal_is_as_before_when_the_server_is_gone(own, tmp_path):
    server = Server(tmp_path / "server-of-its-own")
    (tmp_path / "server-of-its-own").mkdir()
    try:
        server.start("--warm", "0")
        sandbox = server.create()
        variables = {
            "E2B_API_KEY": server.key, "E2B_API_URL": server.url, "E2B_SANDBOX_URL": server.url,
        }
        shell = own.terminal("sandbox", "connect", sandbox.sandbox_id, env=variables)
        prompt(shell)
        server.crash()
        assert shell.exit_code() == 1
        assert shell.settings == shell.before
        assert b"error: " in shell.seen
        server.start("--warm", "0")
        again = own.terminal("sandbox", "connect", sandbox.sandbox_id, env=variables)
        prompt(again)
        again.type(b"exit\r")
        assert again.exit_code() == 0
    finally:
        server.clear()


def test_a_command_on_a_terminal_keeps_sizes_codes_and_pipes(own, create):
    sandbox = create({"timeout": 120})["sandboxID"]
    program = own.terminal(
        "sandbox", "exec", "-t", sandbox, "test -t 0 -a -t 1 && stty size; read x; echo got=$x; exit 5",
        rows=20, columns=70,
    )  # fmt: skip
    program.until(rb"20 70\r+\n")
    program.type(b"word\r")
    program.until(rb"got=word\r+\n")
    assert program.exit_code() == 5
    # Output that goes elsewhere while keys come from the terminal.
    read, write = os.pipe()
    half = own.terminal("sandbox", "exec", "-t", sandbox, "echo piped; sleep 0.2", stdout=write)
    os.close(write)
    assert half.exit_code() == 0
    with os.fdopen(read, "rb") as output:
        assert output.read() == b"piped\r\n"
    assert half.settings == half.before


def test_a_large_paste_arrives_whole(own, create):
    sandbox = create({"timeout": 120})["sandboxID"]
    shell = own.terminal("sandbox", "exec", "-t", sandbox, "stty raw -echo; echo go; head -c 200000 | sha256sum")
    shell.until(rb"go")
    text = b"".join(b"%06d " % number for number in range(28572))[:200_000]
    sent = 0
    while sent < len(text):
        sent += os.write(shell.fd, text[sent : sent + 2048])
    assert shell.until(rb"([0-9a-f]{64})").group(1).decode() == hashlib.sha256(text).hexdigest()
    assert shell.exit_code() == 0
    assert re.search(rb"error", shell.seen) is None
