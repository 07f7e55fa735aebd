"""Terminals."""

import pytest
from e2b import CommandExitException, PtySize

from support.api import rpc_error
from support.connect import Outcome, bash, drain

PROMPT = b"$ "
SIZE = {"cols": 80, "rows": 24}


def terminal(envd, size=SIZE, **process):
    request = {
        "process": {
            "cmd": "/bin/bash",
            "args": ["-i", "-l"],
            "envs": {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
            **process,
        },
        "pty": {"size": size},
    }
    return envd.stream("process.Process/Start", request)


def read_until(stream, outcome: Outcome, text: bytes) -> None:
    """Reads terminal output until it contains `text`; the stream's timeout bounds it."""
    for message in stream:
        outcome.feed(message)
        if text in outcome.pty:
            return
    raise AssertionError(f"{text!r} never came, only {outcome.pty!r}")


def read_prompt(stream, outcome: Outcome, before: int) -> None:
    """Reads until there are more prompts than before. A key sent earlier meets a terminal in
    line mode, where the kernel itself takes it: the shell, once it has the terminal back,
    finds nothing, or in place of Ctrl+D a zero byte.
    """
    messages = iter(stream)
    while outcome.pty.count(PROMPT) <= before:
        outcome.feed(next(messages))


def test_the_size_is_set_and_follows_an_update(envd):
    with terminal(envd) as stream:
        seen = Outcome()
        pid = stream.first("start")["pid"]
        # The marker is split in the input, so that the echo of it does not match.
        envd.send(pid, b"echo cols''=$(tput cols) rows''=$(tput lines)\n", "pty")
        read_until(stream, seen, b"cols=80 rows=24")
        update = {"process": {"pid": pid}, "pty": {"size": {"cols": 100, "rows": 30}}}
        assert envd.unary("process.Process/Update", update).json() == {}
        envd.send(pid, b"echo cols''=$(tput cols) rows''=$(tput lines)\n", "pty")
        read_until(stream, seen, b"cols=100 rows=30")
        envd.send(pid, b"exit\n", "pty")
        assert drain(stream).end == {"exited": True, "status": "exit status 0"}


def test_a_shell_survives_its_client_and_is_joined_again(envd):
    with terminal(envd) as stream:
        pid = stream.first("start")["pid"]
    assert pid in envd.pids()
    with envd.stream("process.Process/Connect", {"process": {"pid": pid}}) as stream:
        seen = Outcome()
        assert stream.first("start")["pid"] == pid
        envd.send(pid, b"echo ag''ain\n", "pty")
        read_until(stream, seen, b"again")
        envd.send(pid, b"exit 4\n", "pty")
        assert drain(stream).end["exitCode"] == 4
    assert pid not in envd.pids()


def test_input_of_the_wrong_kind(envd):
    with terminal(envd) as stream:
        pid = stream.first("start")["pid"]
        rpc_error(envd.send(pid, b"x"), 500, "internal", "tty assigned to process")
        answer = envd.unary("process.Process/CloseStdin", {"process": {"pid": pid}})
        rpc_error(answer, 500, "unknown", "send Ctrl+D (0x04) instead")
        envd.signal(pid)
    with envd.stream("process.Process/Start", bash("sleep 60", stdin=True)) as stream:
        pid = stream.first("start")["pid"]
        rpc_error(envd.send(pid, b"x", "pty"), 500, "internal", "tty not assigned to process")
        size = {"process": {"pid": pid}, "pty": {"size": SIZE}}
        message = "error resizing tty: tty not assigned to process"
        rpc_error(envd.unary("process.Process/Update", size), 500, "internal", message)
        assert envd.unary("process.Process/Update", {"process": {"pid": pid}}).json() == {}
        envd.signal(pid)


def test_a_killed_terminal_ends(envd):
    with terminal(envd) as stream:
        pid = stream.first("start")["pid"]
        envd.signal(pid)
        end = drain(stream).end
    assert end["exitCode"] == -1 and end["status"] == "signal: killed"


def test_ctrl_c_and_ctrl_d_reach_the_shell(envd):
    with terminal(envd) as stream:
        seen = Outcome()
        pid = stream.first("start")["pid"]
        # Said by a child, which the interrupt then meets; a shell about to fork may lose it.
        envd.send(pid, b"sh -c 'echo rea\"\"dy; exec sleep 100'\n", "pty")
        read_until(stream, seen, b"ready")
        prompts = seen.pty.count(PROMPT)
        envd.send(pid, b"\x03", "pty")
        read_prompt(stream, seen, prompts)
        prompts = seen.pty.count(PROMPT)
        envd.send(pid, b"echo code''=$?\n", "pty")
        read_until(stream, seen, b"code=130")
        read_prompt(stream, seen, prompts)
        envd.send(pid, b"\x04", "pty")
        assert drain(stream).end["exited"] is True


def test_it_is_the_controlling_terminal_of_a_session(envd):
    with terminal(envd) as stream:
        seen = Outcome()
        pid = stream.first("start")["pid"]
        envd.send(pid, b"tty && echo to-''tty > /dev/tty; echo $TERM-''$USER\n", "pty")
        read_until(stream, seen, b"xterm-256color-user")
        assert b"/dev/pts/" in seen.pty and b"to-tty" in seen.pty
        envd.signal(pid)


def test_a_terminal_in_a_missing_directory_is_refused(envd):
    with terminal(envd, cwd="/no/such") as stream:
        assert drain(stream).error["code"] == "invalid_argument"


def test_the_sdk_drives_a_terminal(sandbox):
    handle = sandbox.pty.create(PtySize(rows=24, cols=80), envs={"MARK": "sdk"}, timeout=20)
    sandbox.pty.resize(handle.pid, PtySize(rows=40, cols=120))
    sandbox.pty.send_stdin(handle.pid, b"echo $MARK-$(tput cols)\nexit\n")
    output = bytearray()
    result = handle.wait(on_pty=output.extend)
    assert result.exit_code == 0 and b"sdk-120" in output
    handle = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=20)
    assert sandbox.pty.kill(handle.pid) is True
    with pytest.raises(CommandExitException) as raised:
        handle.wait()
    assert raised.value.error == "signal: killed"
    assert sandbox.pty.kill(handle.pid) is False
