"""The contract's checks of the command lines that have to do with sandboxes, with the official
program and with the server's own. Numbers are those of the checks."""

import json
import os
import re
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import env
from support.cli import OFFICIAL, OWN, SANDBOX_ID, Program
from support.wait import until

pytestmark = pytest.mark.skipif(
    OWN is None or not OFFICIAL.exists(), reason="the programs are not there: use the runner"
)
NOBODY = "inosuchsandbox0000000"


@pytest.fixture(params=["official", "own"])
def cli(request, tmp_path):
    program = Program(request.param, tmp_path)
    yield program
    program.close()


@pytest.fixture
def other(request, tmp_path):
    """The other team's key; the runner makes that team."""
    key = env.optional("WARREN_OTHER_API_KEY")
    if key is None:
        pytest.skip("WARREN_OTHER_API_KEY is not set: use the runner")
    return key


def the_id(one):
    return one.get("sandboxId") or one["sandboxID"]


def gone(api, sandbox_id):
    return api.get(f"/sandboxes/{sandbox_id}").status_code == 404


def test_1_version_and_help(cli):
    version = cli.ok("--version").strip()
    assert version == ("2.19.0" if cli.is_official else f"warren {version.split()[-1]}")
    bare = cli.run()
    assert bare.returncode == 1 and bare.stdout == ""
    assert re.search(r"(?i)usage: \w+", bare.stderr)
    unknown = cli.run("templat", "list")
    assert unknown.returncode == 1 and "templat" in unknown.stderr
    assert re.search(r"(?i)did you mean template|similar subcommand", unknown.stderr)


@pytest.mark.parametrize("words", [("template", "list"), ("sandbox", "list")])
def test_2_without_a_key(cli, words):
    refused = cli.run(*words, env={"E2B_API_KEY": None})
    assert refused.returncode == 1 and refused.stdout.strip() == ""
    assert "E2B_API_KEY" in refused.stderr and "auth login" in refused.stderr


def test_3_with_a_wrong_key(cli):
    refused = cli.run("template", "list", env={"E2B_API_KEY": f"e2b_{'0' * 40}"})
    assert refused.returncode == 1
    assert re.search(r"(?i)401\W+unauthorized", refused.stderr)
    if not cli.is_official:
        assert len(refused.stderr.splitlines()) == 1, "one line, no stack"


def test_22_a_sandbox_that_is_paused_when_its_time_is_up(cli, api, edge):
    lifecycle = ["--lifecycle.ontimeout", "pause", "--lifecycle.autoresume"]
    sandbox = cli.ok("sandbox", "create", "-d", "--timeout", "60", *lifecycle).strip()
    try:
        detail = api.get(f"/sandboxes/{sandbox}").json()
        assert detail["lifecycle"] == {"autoResume": True, "onTimeout": "pause"}
        cli.ok("sandbox", "exec", "-b", sandbox, "python3 -m http.server 8000")
        headers = {"E2b-Sandbox-Id": sandbox, "E2b-Sandbox-Port": "8000"}
        until(lambda: edge.get("/", headers=headers).is_success, "the server inside")
        # A minute is not waited for: the end is moved, what happens then is the same.
        assert api.post(f"/sandboxes/{sandbox}/timeout", json={"timeout": 1}).is_success
        state = lambda: api.get(f"/sandboxes/{sandbox}").json()["state"]  # noqa: E731
        until(lambda: state() == "paused", "the sandbox is paused")
        assert edge.get("/", headers=headers).status_code == 200
        assert state() == "running"
    finally:
        cli.run("sandbox", "kill", sandbox)


def test_23_a_time_that_is_too_short_is_refused_here(cli):
    refused = cli.run(
        "sandbox", "create", "-d", "--timeout", "5", env={"E2B_API_URL": "http://127.0.0.1:1"}
    )
    assert refused.returncode == 1 and refused.stdout == ""
    assert "--timeout" in refused.stderr and "5" in refused.stderr


def test_25_lists_and_their_filters(cli, create):
    label = uuid.uuid4().hex
    made = [create({"timeout": 120, "metadata": {"run": label, "n": str(n)}})["sandboxID"] for n in range(3)]
    listed = lambda *more: json.loads(  # noqa: E731
        cli.ok("sandbox", "list", "-m", f"run={label}", "-l", "0", "-f", "json", *more)
    )
    assert [the_id(one) for one in listed()] == made, "oldest first"
    assert [the_id(one) for one in listed("-o", "desc")] == made[::-1]
    assert [the_id(one) for one in listed("-o", "asc")] == made
    assert len(listed("-t", "base")) == 3 and listed("-t", "code-interpreter-v1") == []
    cli.ok("sandbox", "pause", made[1])
    assert [the_id(one) for one in listed("-s", "paused")] == [made[1]]
    assert {the_id(one) for one in listed("-s", "running,paused")} == set(made)
    first = cli.ok("sandbox", "list", "-m", f"run={label}", "-l", "1")
    assert "Showing first 1 sandboxes. Use --limit to change." in first
    table = cli.ok("sandbox", "ls", "-m", f"run={label},n=2", "-l", "0").splitlines()
    header = ["SANDBOX ID", "TEMPLATE ID", "ALIAS", "STARTED AT", "END AT", "STATE", "VCPUS"]
    header += ["RAM MIB", "ENVD VERSION", "METADATA"]
    (head,) = [line for line in table if line.startswith("SANDBOX ID")]
    assert re.split(r" {3,}", head) == header
    (row,) = [line for line in table if SANDBOX_ID.search(line)]
    assert made[2] in row and "Running" in row and label in row
    empty = cli.ok("sandbox", "list", "-m", f"run={label}-none")
    assert empty.strip() == "No sandboxes found"
    odd = cli.run("sandbox", "list", "-f", "yaml")
    assert odd.returncode == 1 and "yaml" in odd.stderr


@pytest.mark.alone
def test_25_and_28_250_sandboxes_are_listed_and_killed_by_label(api, tmp_path):
    programs = [Program("official", tmp_path), Program("own", tmp_path)]
    label = uuid.uuid4().hex

    def make(number):
        body = {
            "templateID": "base", "timeout": 300,
            "metadata": {"run": label, "part": programs[number % 2].name},
        }
        answer = api.post("/v2/sandboxes", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["sandboxID"]

    try:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(make, range(250)))
        for cli in programs:
            all_of = ("sandbox", "list", "-m", f"run={label}", "-f", "json")
            assert {the_id(one) for one in json.loads(cli.ok(*all_of, "-l", "0"))} == set(made)
            assert len(json.loads(cli.ok(*all_of, "-l", "150"))) == 150
    finally:
        told = [
            cli.run("sandbox", "kill", "-a", "-m", f"run={label},part={cli.name}")
            for cli in programs
        ]
    assert ["Killed 125 running sandboxes" in done.stdout for done in told] == [True, True], told
    left = api.get("/v2/sandboxes", params={"metadata": f"run={label}"}).json()
    assert left == []


def test_28_kill_all_with_a_label_kills_those_alone(cli, create, api):
    label = uuid.uuid4().hex
    doomed = create({"metadata": {"run": label, "end": "yes"}})["sandboxID"]
    spared = create({"metadata": {"run": label, "end": "no"}})["sandboxID"]
    told = cli.ok("sandbox", "kill", "-a", "-m", f"run={label},end=yes")
    assert "Killed 1 running sandboxes" in told
    assert gone(api, doomed) and not gone(api, spared)
    again = cli.ok("sandbox", "kill", "--all", "--metadata", f"run={label},end=yes")
    assert "No running sandboxes" in again


def test_29_and_39_pause_resume_and_a_command_that_resumes(cli, create, api):
    sandbox = create({"timeout": 120})["sandboxID"]
    state = lambda: api.get(f"/sandboxes/{sandbox}").json()["state"]  # noqa: E731
    assert "has been paused" in cli.ok("sandbox", "pause", sandbox)
    again = cli.run("sandbox", "pause", sandbox)
    assert again.returncode == 0 and "is already paused" in again.stdout + again.stderr
    assert state() == "paused"
    assert "has been resumed" in cli.ok("sandbox", "resume", sandbox)
    assert state() == "running"
    cli.ok("sandbox", "ps", sandbox)
    assert cli.ok("sandbox", "exec", sandbox, "echo awake") == "awake\n"
    for command in ["pause", "resume"]:
        missing = cli.run("sandbox", command, NOBODY)
        assert missing.returncode == 1 and "wasn't found" in missing.stderr


def test_30_logs_by_level_and_logger(cli, create):
    sandbox = create({"timeout": 120})["sandboxID"]
    cli.ok("sandbox", "exec", sandbox, "echo told")
    logs = lambda *more: [  # noqa: E731
        json.loads(line)
        for line in cli.ok("sandbox", "logs", sandbox, "--format", "json", *more).splitlines()
        if line
    ]
    logger = lambda one: one.get("logger") or one["fields"]["logger"]  # noqa: E731
    until(lambda: any("ended" in json.dumps(one) for one in logs()), "the command's lines")
    of_processes = logs("--loggers", "process")
    assert of_processes and all(logger(one).startswith("process") for one in of_processes)
    assert logs("--loggers", "no-such-logger") == []
    assert all(one["level"].lower() == "error" for one in logs("--level", "error"))
    levels = {one["level"].lower() for one in logs("--level", "DEBUG")}
    assert "info" in levels and len(logs("--level", "debug")) >= len(logs())
    pretty = cli.ok("sandbox", "logs", sandbox)
    assert re.search(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z\].*INFO", pretty)


def test_30_and_31_followed_to_the_end_of_the_sandbox(cli, create):
    sandbox = create({"timeout": 120})["sandboxID"]
    followed = [
        cli.start("sandbox", what, sandbox, "-f", "--format", "json", text=True)
        for what in ["logs", "metrics"]
    ]
    # One line of each is awaited, so that both follow before the end comes.
    first = [one.stdout.readline() for one in followed]
    for number in range(4):
        cli.ok("sandbox", "exec", sandbox, f"echo {number}")
    cli.ok("sandbox", "kill", sandbox)
    ends = [one.communicate(timeout=60) for one in followed]
    # The official program follows metrics until it is refused, and says that as an error.
    assert [one.returncode for one in followed] == [0, 1 if cli.is_official else 0], ends
    for begun, (out, err) in zip(first, ends, strict=True):
        lines = [line for line in (begun + out).splitlines() if line.startswith("{")]
        assert lines and len(lines) == len(set(lines)), "each line once"
        assert cli.is_official or "sandbox is closed" in err
    logs = first[0] + ends[0][0]
    assert logs.count("process started") == 4 and logs.count("process ended") == 4


def test_31_metrics_have_a_sample_soon(cli, create):
    sandbox = create({"timeout": 120})["sandboxID"]
    line = (
        r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\] +CPU: +[\d.]+% / +2 Cores"
        r" \| Memory: +\d+ / \d+ +MiB \| Disk: +\d+ / \d+ +MiB"
    )
    # The official program colours what it shows, and has a heading where there is nothing.
    shown = lambda: re.sub(r"\x1b\[[\d;]*m", "", cli.ok("sandbox", "metrics", sandbox))  # noqa: E731
    until(lambda: re.search(line, shown()), "a sample", 30)


def test_32_snapshots(cli, create):
    sandbox = create({"timeout": 120})["sandboxID"]
    name = f"snap-{uuid.uuid4().hex[:10]}"
    made = cli.ok("sandbox", "snapshot", "create", sandbox, "-n", name)
    snapshot = re.search(rf"Created snapshot (\S+) from sandbox {sandbox}", made).group(1)
    table = cli.ok("sandbox", "snapshot", "list", "-n", name)
    assert "SNAPSHOT ID" in table and name in table
    (listed,) = json.loads(cli.ok("sandbox", "snap", "ls", sandbox, "-f", "json"))
    assert snapshot in listed.values()
    copy = cli.ok("sandbox", "create", "-d", snapshot).strip()
    cli.ok("sandbox", "kill", copy)
    assert "has been deleted" in cli.ok("sandbox", "snapshot", "delete", snapshot)
    again = cli.run("sandbox", "snapshot", "delete", snapshot)
    assert again.returncode == 0 and "wasn't found" in again.stdout + again.stderr
    assert "No snapshots found" in cli.ok("sandbox", "snapshot", "list", sandbox)


def test_35_input_that_nobody_reads_to_its_end(cli, create):
    sandbox = create({"timeout": 120})["sandboxID"]
    early = cli.run("sandbox", "exec", sandbox, "head", "-c", "1", input=b"x" * 20_000_000)
    assert (early.returncode, early.stdout) == (0, b"x")
    assert b"Remote command exited before stdin could be delivered." in early.stderr
    assert cli.ok("sandbox", "exec", sandbox, "wc", "-c", input="") == "0\n"


def test_34_and_35_a_file_goes_in_and_comes_out_as_it_is(cli, create, tmp_path):
    sandbox = create({"timeout": 120})["sandboxID"]
    # The official program takes what comes out for text.
    data = b"0123456789abcde\n" * 625_000 if cli.is_official else os.urandom(10_000_000)
    (tmp_path / "in").write_bytes(data)
    # Into a file: on a pipe the official program exits before all of it is written.
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        cli.ok("sandbox", "exec", sandbox, "cat", stdin=source, stdout=target, capture_output=False)
    assert (tmp_path / "out").read_bytes() == data


def test_35_binary_pipes_on_both_sides(create, tmp_path):
    cli = Program("own", tmp_path)
    sandbox = create({"timeout": 120})["sandboxID"]
    data = os.urandom(10_000_000)
    piped = cli.run("sandbox", "exec", sandbox, "cat", input=data)
    assert piped.returncode == 0 and piped.stdout == data
    first = cli.start("sandbox", "exec", sandbox, "cat /dev/zero")
    last = subprocess.run(["head", "-c", "100000"], stdin=first.stdout, capture_output=True, timeout=60)
    first.stdout.close()
    first.wait(30)
    assert len(last.stdout) == 100_000
    assert first.returncode == 141, "as a program whose reader has gone"
    until(
        lambda: cli.run("sandbox", "exec", sandbox, "pgrep -fx 'cat /dev/zero'").returncode == 1,
        "the command ends with its reader",
    )


def test_44_a_terminal_that_is_none(cli, api):
    refused = cli.run("sandbox", "create")
    assert refused.returncode == 1
    for sandbox in SANDBOX_ID.findall(refused.stdout + refused.stderr):
        until(lambda: gone(api, sandbox), f"{sandbox} is gone")  # noqa: B023
    made = SANDBOX_ID.search(refused.stdout + refused.stderr)
    assert cli.is_official == bool(made), "our own asks for a terminal before it makes one"


def test_46_a_file_of_the_first_version_works_and_stays(cli):
    config = cli.home / ".e2b/config.json"
    config.parent.mkdir()
    old = {
        "version": 1,
        "identity": {"email": "somebody@example.com"},
        "oauth": {
            "token_endpoint": f"{env.API_URL}/token",
            "revoke_endpoint": f"{env.API_URL}/revoke",
            "client_id": "cli",
        },
        "tokens": {"access_token": "a.b.c", "refresh_token": "r"},
        "last_refresh": "2026-01-01T00:00:00.000Z",
        "teamName": "old team",
        "teamId": "",
        "teamApiKey": env.API_KEY,
    }
    config.write_text(json.dumps(old))
    before = config.read_bytes()
    listed = cli.run("template", "list", "-f", "json", env={"E2B_API_KEY": None})
    assert listed.returncode == 0, listed.stderr
    assert isinstance(json.loads(listed.stdout), list)
    assert config.read_bytes() == before
    assert "old team" in cli.ok("auth", "info", env={"E2B_API_KEY": None})
