"""Every command prints JSON where `--json` asks for it. The commands are those of the reference
page, which is written from the grammar, so that none can be forgotten."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from support.cli import OWN, SANDBOX_ID
from support.server import Server
from support.wait import until

pytestmark = pytest.mark.skipif(OWN is None, reason="WARREN_BIN names no program")

REFERENCE = Path(__file__).parents[3] / "docs/reference/cli.md"
# Commands that have no result to print, or are looked at where their work is done anyway.
NOT_HERE = {
    "warren template export": "see test_cli_templates.py",
    "warren template import": "see test_cli_templates.py",
    "warren mcp": "speaks the protocol until its input ends",
    "warren completions": "prints a script for a shell",
    "warren sandbox connect": "is a terminal",
    "warren bundle create": "packs the layers of templates; see the tests of packaging",
    "warren bundle install": "unpacks them",
}
# Commands that do their work without a server, and so do not fail for want of one.
WITHOUT_SERVER = {
    "warren doctor", "warren man", "warren uninstall", "warren restore",
    "warren auth info", "warren auth configure", "warren auth logout",
    "warren template init", "warren template migrate",
}  # fmt: skip


def commands():
    """The commands that can be run: those that are no groups."""
    headings = re.findall(r"(?m)^## (warren .*)$", REFERENCE.read_text())
    groups = {heading.rpartition(" ")[0] for heading in headings}
    # Alone it shows the caller's.
    return {one for one in headings if one not in groups} | {"warren limits"}


class Session:
    """Runs commands against a server of its own and keeps count of them."""

    def __init__(self, server, home):
        self.server = server
        self.home = home
        self.ran = {}
        self.variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))},
            "HOME": str(home),
            "E2B_API_KEY": server.key,
            "E2B_API_URL": server.url,
            "E2B_SANDBOX_URL": server.url,
            "WARREN_DATA_DIR": str(server.data),
        }

    def run(self, command, *words, **more):
        return subprocess.run(
            [OWN, *command.split()[1:], "--json", *map(str, words)],
            env={**self.variables, **more},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
        )

    def __call__(self, command, *words, code=0, lines=False):
        """Runs a command; returns the JSON that it must print."""
        done = self.run(command, *words)
        assert done.returncode == code, (command, words, done.stdout, done.stderr)
        self.ran.setdefault(command, words)
        if lines:
            return [json.loads(line) for line in done.stdout.splitlines()]
        return json.loads(done.stdout)


@pytest.fixture
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("json"))
    one.start("--warm", "0", "--ssh-listen", "127.0.0.1:0")
    yield one
    if one.data.exists():
        one.clear()


@pytest.fixture
def said(server, tmp_path):
    return Session(server, tmp_path)


def operators_commands(said):
    made = said("warren team create", "Some team", "--slug", "some-team")
    assert made["team"]["slug"] == "some-team" and made["key"]["key"].startswith("e2b_")
    assert "some-team" in [team["slug"] for team in said("warren team list")]
    assert said("warren team rename", "some-team", "Another name")["name"] == "Another name"
    assert said("warren team set", "some-team", "--max-sandboxes", 3)["maxSandboxes"] == 3
    person = said("warren user create", "a@example.com", "--team", "some-team")
    assert person["user"]["email"] == "a@example.com" and person["accessToken"]["token"]
    assert [one["email"] for one in said("warren team members", "some-team")] == ["a@example.com"]
    assert "a@example.com" in [one["email"] for one in said("warren user list")]
    joined = said("warren user join", "a@example.com", "default", "--role", "viewer")
    assert joined == {"user": "a@example.com", "team": "default", "role": "viewer"}
    assert said("warren user leave", "a@example.com", "default")["left"] is True
    token = said("warren user token create", "a@example.com", "spare")
    listed = said("warren user token list", "a@example.com")
    assert token["id"] in [one["id"] for one in listed]
    deleted = said("warren user token delete", "a@example.com", token["id"])
    assert deleted == {"accessToken": token["id"], "deleted": True}
    key = said("warren key create", "spare")
    assert key["key"].startswith("e2b_")
    assert key["id"] in [one["id"] for one in said("warren key list")]
    assert said("warren key rename", key["id"], "other")["name"] == "other"
    whose = ["--team", made["team"]["teamID"]]
    assert said("warren limits set", *whose, "--cpus", 7)["own"]["cpus"] == 7
    assert said("warren limits get", *whose)["limits"]["cpus"] == 7
    assert said("warren limits")["team"]["used"]["sandboxes"] == 0
    assert said("warren key revoke", key["id"])["revoked"] is True
    assert said("warren key show-first")["key"] == said.server.key
    assert said("warren explain", key["id"])["summary"]
    assert said("warren audit", "--target", key["id"])[0]["action"]
    assert said("warren user delete", "a@example.com")["deleted"] is True
    assert said("warren team delete", "some-team") == {"team": "some-team", "deleted": True}


def signing_in(said):
    assert said("warren auth info") == {"loggedIn": False}
    assert said("warren auth configure") == {"loggedIn": False}
    assert said("warren auth login", "--with-key")["loggedIn"] is True
    assert said("warren auth login")["loggedIn"] is True, "already"
    assert said("warren auth configure")["loggedIn"] is True
    assert said("warren auth info")["loggedIn"] is True
    assert said("warren auth logout") == {"loggedOut": True}
    assert said("warren auth logout") == {"loggedOut": False}


def sandboxes(said):
    sandbox = said("warren sandbox create", "-d", "--timeout", 300)["sandboxID"]
    assert SANDBOX_ID.fullmatch(sandbox)
    spawned = said("warren sandbox spawn", "-d")["sandboxID"]
    assert {one["sandboxID"] for one in said("warren sandbox list")} == {sandbox, spawned}
    assert said("warren sandbox info", sandbox)["state"] == "running"
    assert said("warren sandbox timeout", sandbox, 200)["timeout"] == 200
    assert said("warren sandbox pause", sandbox)["changed"] is True
    assert said("warren sandbox resume", sandbox)["state"] == "running"
    assert said("warren sandbox exec", "-b", sandbox, "sleep 600")["pid"] > 1
    plain = said.run("warren sandbox exec", sandbox, "echo out")
    assert plain.stdout == "out\n", "the output of a command is its own"
    until(lambda: said("warren sandbox logs", sandbox, lines=True), "a line")
    until(lambda: said("warren sandbox metrics", sandbox, lines=True), "a sample")
    snapshot = said("warren sandbox snapshot create", sandbox)["snapshotID"]
    assert [one["snapshotID"] for one in said("warren sandbox snapshot list")] == [snapshot]
    gone = said("warren sandbox snapshot delete", snapshot, "nosuch")
    assert [one["deleted"] for one in gone] == [True, False]
    assert said("warren ssh", "--print", sandbox)["command"][0] == "ssh"
    killed = said("warren sandbox kill", sandbox, spawned, "inosuchsandbox0000000")
    assert [one["killed"] for one in killed] == [True, True, False]
    assert said("warren sandbox kill", "--all") == []


def templates(said):
    (said.home / "e2b.Dockerfile").write_text("FROM e2bdev/base\nRUN true\n")
    made = said("warren template create", "one")
    assert re.fullmatch(r"[a-z0-9]{20}", made["templateID"])
    again = said("warren template build", "-n", "one")
    assert again["templateID"] == made["templateID"]
    assert ["one"] in [one["aliases"] for one in said("warren template list")]
    assert said("warren template publish", "one", "-y")[0]["public"] is True
    assert said("warren template unpublish", "one", "-y")[0]["public"] is False
    started = said("warren template init", "begun", "-l", "python-sync")
    assert all(Path(said.home / path).exists() for path in started["created"])
    moved = said("warren template migrate", "-l", "typescript")
    assert "./template.ts" in moved["created"]
    assert said("warren template delete", "one", "-y") == [{"template": "one", "deleted": True}]


def keys_of_ssh(said):
    file = said.home / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", str(file)]
    subprocess.run(command, check=True, timeout=60)
    added = said("warren ssh-key add", f"{file}.pub")
    assert added["name"] == "mine"
    assert [one["keyID"] for one in said("warren ssh-key list")] == [added["keyID"]]
    assert [one["keyID"] for one in said("warren ssh-key remove", "mine")] == [added["keyID"]]
    assert said("warren ssh-key list") == []


def what_looks_at_the_machine(said):
    report = said.run("warren doctor")
    assert json.loads(report.stdout)
    said.ran["warren doctor"] = ()
    assert said("warren man", "pages")["pages"] > 50
    trust = said("warren trust", "--dry-run")
    assert trust["dryRun"] is True and trust["domains"]
    assert all("ms" in step for step in said("warren demo", lines=True))
    assert said("warren bench", "--count", 1, "--burst", 1)["burst"]["count"] == 1


def backups_and_the_end(said):
    # The layers that tests share are no part of this.
    backup = said("warren backup", "--no-templates", "kept")
    assert backup["to"] == "kept"
    target = said.home / "restored"
    restored = said("warren restore", "--data-dir", target, "kept")
    assert restored["dataDir"] == str(target)
    errors = {}
    for command, words in said.ran.items():
        if command not in WITHOUT_SERVER:
            errors[command] = said.run(
                command, *words, E2B_API_URL="http://127.0.0.1:1", WARREN_DATA_DIR="/nonexistent"
            )
    said.server.stop()
    assert said("warren uninstall", "--yes") == {"dataDir": str(said.server.data), "removed": True}
    wrong = {
        command: (done.returncode, done.stdout, done.stderr)
        for command, done in errors.items()
        if done.returncode != 1 or not re.search("^error: ", done.stderr, re.M)
        or done.stdout and not json.loads(done.stdout)
    }
    assert wrong == {}, "an error is a line on standard error; all else that is printed is JSON"


@pytest.mark.timeout(300)
def test_every_command_prints_json(said):
    operators_commands(said)
    signing_in(said)
    sandboxes(said)
    templates(said)
    keys_of_ssh(said)
    what_looks_at_the_machine(said)
    backups_and_the_end(said)
    assert set(said.ran) == commands() - NOT_HERE.keys()
