"""Processes: start, exit, signals, deadlines, subscribers, environment."""

import hashlib
import time

import pytest
from e2b import CommandExitException, InvalidArgumentException, Sandbox, TimeoutException

from support.api import rpc_error
from support.connect import bash, basic, drain
from support.wait import until


def start(envd, command: str, **kwargs):
    return envd.stream("process.Process/Start", bash(command, **kwargs))


def alive(envd, command: str) -> bool:
    """Whether a process with this command line is left in the sandbox."""
    lines = envd.run("for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f; echo; done").stdout
    return command.encode() in lines


def test_the_events_of_a_command(envd):
    outcome = envd.run("echo hi")
    assert outcome.kinds[0] == "start" and outcome.kinds[-1] == "end"
    assert outcome.kinds.count("start") == outcome.kinds.count("end") == 1
    assert outcome.stdout == b"hi\n" and outcome.stderr == b""
    assert outcome.pid > 0
    assert outcome.end == {"exited": True, "status": "exit status 0"}


def test_a_command_that_does_not_exist_runs_and_exits_127(envd):
    request = {"process": {"cmd": "no-such-binary"}, "stdin": False}
    outcome = envd.outcome("process.Process/Start", request)
    assert outcome.kinds[0] == "start"
    assert outcome.stderr and outcome.end["exitCode"] == 127
    assert outcome.trailer == {}


@pytest.mark.parametrize("code", [1, 3, 255])
def test_exit_codes(envd, code):
    assert envd.run(f"exit {code}").end == {
        "exitCode": code,
        "exited": True,
        "status": f"exit status {code}",
        "error": f"exit status {code}",
    }


@pytest.mark.parametrize(
    "name,status",
    [("KILL", "killed"), ("TERM", "terminated"), ("HUP", "hangup"), ("SEGV", "segmentation fault")],
)
def test_a_signal_is_told_from_an_exit(envd, name, status):
    end = envd.run(f"kill -{name} $$").end
    assert end["exitCode"] == -1 and "exited" not in end
    assert end["status"].removesuffix(" (core dumped)") == f"signal: {status}"
    assert end["error"] == end["status"]


def test_a_kill_ends_the_stream_and_the_listing(envd):
    with start(envd, "sleep 60") as stream:
        pid = stream.first("start")["pid"]
        assert pid in envd.pids()
        assert envd.signal(pid).json() == {}
        outcome = drain(stream)
    assert outcome.end["status"] == "signal: killed"
    assert pid not in envd.pids()
    rpc_error(envd.signal(pid), 404, "not_found", f"process with pid {pid} not found")


def test_a_kill_does_not_wait_for_grandchildren_on_the_pipe(envd):
    with start(envd, "sleep 30 && echo done") as stream:
        pid = stream.first("start")["pid"]
        time.sleep(0.2)
        envd.signal(pid)
        # The read bound of the stream is shorter than the grandchild's sleep.
        assert drain(stream).end["exitCode"] == -1
    assert pid not in envd.pids()


def test_the_sdk_kills_once(sandbox):
    handle = sandbox.commands.run("sleep 60", background=True)
    assert handle.kill() is True
    with pytest.raises(CommandExitException) as raised:
        handle.wait()
    assert raised.value.exit_code == -1 and raised.value.error == "signal: killed"
    assert handle.kill() is False


@pytest.mark.parametrize("signal", ["SIGNAL_UNSPECIFIED", 2])
def test_other_signals_are_not_offered(envd, signal):
    with start(envd, "sleep 60") as stream:
        pid = stream.first("start")["pid"]
        rpc_error(envd.signal(pid, signal), 501, "unimplemented", "invalid signal:")
        assert pid in envd.pids()
        envd.signal(pid)
        drain(stream)


def test_a_deadline_kills_the_process(envd):
    outcome = envd.run("echo $$; exec sleep 31.4159", connect_timeout_ms="1000")
    assert outcome.error == {
        "code": "deadline_exceeded",
        "message": "context deadline exceeded",
    }
    until(lambda: not alive(envd, "sleep 31.4159"), "the process dies", 5)
    assert outcome.pid not in envd.pids()


def test_a_deadline_outlives_the_client(envd):
    with envd.stream(
        "process.Process/Start", bash("exec sleep 32.7182"), connect_timeout_ms="1500"
    ) as stream:
        pid = stream.first("start")["pid"]
    assert pid in envd.pids()
    until(lambda: pid not in envd.pids(), "the process dies at its deadline", 6)


def test_the_sdk_raises_at_a_deadline(sandbox):
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 30", timeout=1)


def test_a_process_survives_its_client(envd):
    with start(envd, "sleep 60") as stream:
        pid = stream.first("start")["pid"]
    time.sleep(0.3)
    assert pid in envd.pids()
    envd.signal(pid)


def test_connect_joins_and_sees_only_what_is_new(envd):
    command = "echo before; read x; echo after-$x; exit 5"
    with start(envd, command, stdin=True) as first:
        pid = first.first("start")["pid"]
        assert "data" in next(iter(first))["event"]
        with envd.stream("process.Process/Connect", {"process": {"pid": pid}}) as second:
            assert second.first("start")["pid"] == pid
            envd.send(pid, b"go\n")
            joined = drain(second)
        original = drain(first)
    assert joined.stdout == original.stdout == b"after-go\n"
    assert joined.end == original.end and joined.end["exitCode"] == 5


def test_a_deadline_of_connect_ends_that_stream_only(envd):
    with start(envd, "sleep 60") as stream:
        pid = stream.first("start")["pid"]
        joined = envd.outcome(
            "process.Process/Connect", {"process": {"pid": pid}}, connect_timeout_ms="500"
        )
        assert joined.error["code"] == "deadline_exceeded"
        assert pid in envd.pids()
        envd.signal(pid)
        assert drain(stream).end["exitCode"] == -1


def test_an_exit_is_kept_for_a_late_connect(envd):
    pid = envd.run("exit 7").pid
    late = envd.outcome("process.Process/Connect", {"process": {"pid": pid}})
    assert late.kinds == ["start", "end"]
    assert late.pid == pid and late.end["exitCode"] == 7


def test_connect_by_tag(envd):
    tagged = [{**bash(f"sleep 60; exit {n}"), "tag": f"t{n}"} for n in (1, 2)]
    with envd.stream("process.Process/Start", tagged[0]) as one:
        with envd.stream("process.Process/Start", tagged[1]) as two:
            pids = [one.first("start")["pid"], two.first("start")["pid"]]
            for number, pid in enumerate(pids, 1):
                selector = {"process": {"tag": f"t{number}"}}
                with envd.stream("process.Process/Connect", selector) as joined:
                    assert joined.first("start")["pid"] == pid
            tags = {p["pid"]: p.get("tag") for p in envd.processes()}
            assert [tags[pid] for pid in pids] == ["t1", "t2"]
            for pid in pids:
                envd.signal(pid)


def test_connect_to_what_is_not_there(envd):
    for selector, text in (
        ({"pid": 999999}, "process with pid 999999 not found"),
        ({"tag": "no-such"}, "process with tag no-such not found"),
    ):
        error = envd.outcome("process.Process/Connect", {"process": selector}).error
        assert error["code"] == "not_found" and error["message"] == text
    assert envd.outcome("process.Process/Connect", {}).error["code"] == "unimplemented"


def test_the_listing_echoes_the_request(envd):
    request = bash("sleep 60", envs={"A": "1"}, cwd="/tmp")
    with envd.stream("process.Process/Start", request) as stream:
        pid = stream.first("start")["pid"]
        entry = next(p for p in envd.processes() if p["pid"] == pid)
        assert entry["config"] == request["process"]
        envd.signal(pid)


class TestStdin:
    """The three ways of standard input."""

    def test_off_reads_the_end_at_once(self, envd):
        assert envd.run("read -p x").end["exitCode"] == 1

    def test_off_takes_no_input(self, envd):
        with start(envd, "sleep 60") as stream:
            pid = stream.first("start")["pid"]
            answer = envd.send(pid, b"x")
            rpc_error(answer, 500, "internal", "stdin not enabled or closed")
            envd.signal(pid)

    def test_absent_is_a_pipe(self, envd):
        with start(envd, "read x; echo got $x", stdin=None) as stream:
            envd.send(stream.first("start")["pid"], b"it\n")
            assert drain(stream).stdout == b"got it\n"

    def test_close_is_the_end_and_may_be_repeated(self, envd):
        with start(envd, "cat; sleep 1", stdin=True) as stream:
            pid = stream.first("start")["pid"]
            envd.send(pid, b"echo")
            for _ in range(2):
                answer = envd.unary("process.Process/CloseStdin", {"process": {"pid": pid}})
                assert answer.json() == {}
            outcome = drain(stream)
        assert outcome.stdout == b"echo" and outcome.end["exited"] is True

    def test_a_large_input_arrives_whole(self, envd):
        data = bytes(range(256)) * 4096
        with start(envd, "head -c 1048576 | sha256sum", stdin=True) as stream:
            envd.send(stream.first("start")["pid"], data)
            assert drain(stream).stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()

    def test_the_sdk_sends_and_closes(self, sandbox):
        handle = sandbox.commands.run("cat", background=True, stdin=True)
        sandbox.commands.send_stdin(handle.pid, "sdk\n")
        handle.close_stdin()
        assert handle.wait().stdout == "sdk\n"


def test_a_grandchild_on_the_pipe_keeps_the_stream_open(envd):
    held = envd.run("(sleep 1; echo late) & echo now")
    assert held.stdout == b"now\nlate\n"
    with start(envd, "sleep 60 >/dev/null 2>&1 & echo $!") as stream:
        freed = drain(stream)
    assert freed.end["exited"] is True
    envd.run(f"kill {int(freed.stdout)}")


def test_bytes_that_are_no_text_pass_through(envd, sandbox):
    command = "head -c 8191 /dev/zero | tr '\\0' a; printf '\\xe2'"
    assert envd.run(command).stdout == b"a" * 8191 + b"\xe2"
    assert sandbox.commands.run(command).stdout == "a" * 8191 + "\ufffd"


def test_ten_megabytes_arrive_whole_and_in_order(envd):
    outcome = envd.run("seq 1 1500000", timeout=60)
    expected = b"".join(b"%d\n" % n for n in range(1, 1500001))
    assert len(outcome.stdout) > 10**7
    assert outcome.stdout == expected
    assert outcome.kinds[-1] == "end" and outcome.trailer == {}


def test_a_slow_reader_loses_nothing(envd):
    with start(envd, "seq 1 400000; echo last >&2") as stream:
        stream.first("start")
        time.sleep(1.5)
        outcome = drain(stream)
    assert outcome.stdout == b"".join(b"%d\n" % n for n in range(1, 400001))
    assert outcome.stderr == b"last\n"


class TestEnvironment:
    """What a process finds around it."""

    def test_variables_last_for_one_command(self, envd):
        assert envd.run("echo $FOO", envs={"FOO": "bar"}).stdout == b"bar\n"
        assert envd.run("echo $FOO").stdout == b"\n"

    def test_a_request_overrides_the_sandbox(self):
        with Sandbox.create(timeout=60, envs={"A": "1", "B": "b"}) as sandbox:
            result = sandbox.commands.run("echo $A$B", envs={"A": "2"})
            assert result.stdout == "2b\n"

    def test_sudo_asks_for_nothing(self, envd):
        outcome = envd.run('sudo -n echo "$FOO"', envs={"FOO": "bar"})
        assert outcome.stdout == b"bar\n" and outcome.stderr == b""

    def test_only_the_documented_variables_are_there(self, envd):
        request = {"process": {"cmd": "/usr/bin/env", "envs": {"MINE": "1"}}, "stdin": False}
        lines = envd.outcome("process.Process/Start", request).stdout.decode().splitlines()
        found = dict(line.split("=", 1) for line in lines)
        assert found["HOME"] == "/home/user" and found["USER"] == found["LOGNAME"] == "user"
        assert found["MINE"] == "1" and "/usr/bin" in found["PATH"].split(":")
        # They lead to the system's certificates, as docs/network.md tells.
        trust = {"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "DENO_CERT"}
        assert {found[name] for name in trust} == {"/etc/ssl/certs/ca-certificates.crt"}
        extra = set(found) - {"PATH", "HOME", "USER", "LOGNAME", "MINE"} - trust
        assert all(name.startswith("E2B_") for name in extra), extra

    @pytest.mark.parametrize(
        "cwd,expected",
        [(None, "/home/user"), ("~", "/home/user"), ("~/x", "/home/user/x"), ("x", "/home/user/x")],
    )
    def test_the_working_directory(self, envd, sandbox, cwd, expected):
        sandbox.files.make_dir("/home/user/x")
        assert envd.run("pwd", cwd=cwd).stdout.decode().strip() == expected

    def test_a_missing_directory_is_an_invalid_argument(self, envd, sandbox):
        error = envd.run("pwd", cwd="/tmp/test-workdir").error
        assert error["code"] == "invalid_argument"
        assert error["message"] == "cwd '/tmp/test-workdir' does not exist"
        with pytest.raises(InvalidArgumentException):
            sandbox.commands.run("pwd", cwd="/tmp/test-workdir")

    def test_a_directory_out_of_reach_is_an_invalid_argument(self, envd):
        envd.run("mkdir -pm 700 /root/closed", **basic("root"))
        assert envd.run("pwd", cwd="/root/closed").error["code"] == "invalid_argument"
        assert envd.run("pwd", cwd="/root/closed", **basic("root")).end["exited"] is True

    def test_priorities_and_groups_of_a_user_process(self, envd):
        command = "nice; cat /proc/self/oom_score_adj; id -G | wc -w; cat /proc/$$/status"
        lines = envd.run(command).stdout.decode().splitlines()
        assert lines[:2] == ["0", "100"] and int(lines[2]) >= 2
        status = dict(line.split(":\t", 1) for line in lines[3:] if ":\t" in line)
        assert set(status["Uid"].split()) == {"1000"}
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
