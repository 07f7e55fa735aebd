"""The contract's checks of the command lines that have to do with templates, with the official
program and with the server's own. Numbers are those of the checks."""

import json
import os
import re
import subprocess
import sys
import uuid

import pytest

from support import env
from support.cli import OFFICIAL, OWN, Program

pytestmark = pytest.mark.skipif(
    OWN is None or not OFFICIAL.exists(), reason="the programs are not there: use the runner"
)
# Whoever asks it is told so at once.
NO_SERVER = {"E2B_API_URL": "http://127.0.0.1:1"}


@pytest.fixture(params=["official", "own"])
def cli(request, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    program = Program(request.param, home)
    yield program
    program.close()


@pytest.fixture
def name(api):
    name = f"contract-{uuid.uuid4().hex[:10]}"
    yield name
    for one in [name, f"{name}-dev"]:
        api.delete(f"/templates/{one}")


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "project"
    directory.mkdir()
    write(directory, "RUN true")
    return directory


def write(directory, *lines):
    (directory / "e2b.Dockerfile").write_text("\n".join(["FROM e2bdev/base", *lines, ""]))


def other_key():
    key = env.optional("WARREN_OTHER_API_KEY")
    if key is None:
        pytest.skip("WARREN_OTHER_API_KEY is not set: use the runner")
    return key


def test_6_a_start_command_runs_in_sandboxes(cli, project, name):
    start = ["-c", "touch /tmp/up; exec sleep 7171", "--ready-cmd", "[ -f /tmp/up ]"]
    cli.ok("template", "create", name, "-p", str(project), *start)
    sandbox = cli.ok("sandbox", "create", "-d", name).strip()
    try:
        assert cli.ok("sandbox", "exec", sandbox, "pgrep -fcx 'sleep 7171'") == "1\n"
    finally:
        cli.run("sandbox", "kill", sandbox)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x", "-c", "sleep 1"], r"Both start and ready commands must be provided\."),
        (["Bad Name"], r"Template name .*is not valid\."),
        (["x", "--memory-mb", "1001"], r"memory in megabytes must be an even number.*1001"),
    ],
    ids=["7", "8-name", "8-memory"],
)
def test_7_and_8_are_refused_before_any_request(cli, project, words, told):
    refused = cli.run("template", "create", *words, "-p", str(project), env=NO_SERVER)
    assert refused.returncode == 1
    assert re.search(told, refused.stdout + refused.stderr)


def test_9_cpus_that_no_template_has(cli, project, name):
    refused = cli.run("template", "create", name, "-p", str(project), "--cpu-count", "3")
    assert refused.returncode == 1
    assert "CPU count must be 1 or an even number" in refused.stdout + refused.stderr


def test_10_an_image_that_can_not_be_reached_is_named(cli, project, name):
    image = "registry.invalid/some/image:1"
    (project / "e2b.Dockerfile").write_text(f"FROM {image}\n")
    failed = cli.run("template", "create", name, "-p", str(project))
    assert failed.returncode == 1 and image in failed.stderr


def test_11_a_thousand_lines_appear_once_each_in_order(cli, project, name):
    write(project, f"RUN : {name}; for i in $(seq 1 1000); do echo line-$i; done")
    built = cli.ok("template", "create", name, "-p", str(project))
    assert re.findall(r"line-(\d+)", built) == [str(n) for n in range(1, 1001)]


def test_12_the_list_as_a_table_and_as_json(cli, project, name):
    cli.ok("template", "create", name, "-p", str(project))
    table = cli.ok("template", "list").splitlines()
    (head,) = [line for line in table if line.startswith("ACCESS")]
    assert re.split(r" {3,}", head) == [
        "ACCESS", "TEMPLATE ID", "TEMPLATE NAME", "VCPUS", "RAM MIB", "CREATED BY",
        "CREATED AT", "DISK SIZE MIB", "ENVD VERSION",
    ]  # fmt: skip
    listed = json.loads(cli.ok("tpl", "ls", "-f", "json"))
    (one,) = [one for one in listed if name in one["aliases"]]
    assert one["buildStatus"] == "ready" and one["names"][0].endswith(f"/{name}")


def test_13_a_project_without_templates(cli):
    data = env.optional("WARREN_DATA_DIR")
    if data is None:
        pytest.skip("WARREN_DATA_DIR is not set: use the runner")
    operator = lambda *words: subprocess.run(  # noqa: E731
        [OWN, "team", *words, "--data-dir", data, "--json"], capture_output=True, check=True, timeout=60
    )
    made = json.loads(operator("create", f"Empty {uuid.uuid4().hex[:8]}").stdout)
    try:
        shown = cli.ok("template", "list", env={"E2B_API_KEY": made["key"]["key"]})
        assert shown.strip() == "No templates found."
    finally:
        operator("delete", made["team"]["slug"], "--force")


def test_14_another_project_than_that_of_the_key(cli):
    refused = cli.run("template", "list", "-t", str(uuid.uuid4()))
    assert refused.returncode == 1
    assert "Team ID param mismatch with the API key" in refused.stderr
    assert re.search(r"(?i)400.*bad request", refused.stderr)
    old = cli.run("template", "list", "--team", str(uuid.uuid4()))
    assert old.returncode == 1 and "use --project instead" in old.stdout + old.stderr


def test_15_a_published_template_is_of_use_to_others_until_it_is_not(cli, project, name, api):
    stranger = {"E2B_API_KEY": other_key()}
    cli.ok("template", "create", name, "-p", str(project))
    published = cli.ok("template", "publish", name, "-y")
    full = re.search(rf"Published as: (\S+/{name})", published).group(1)
    sandbox = cli.ok("sandbox", "create", "-d", full, env=stranger).strip()
    cli.ok("sandbox", "kill", sandbox, env=stranger)
    cli.ok("template", "unpublish", name, "-y")
    refused = cli.run("sandbox", "create", "-d", full, env=stranger)
    assert refused.returncode == 1 and refused.stdout == ""


def build(directory, script):
    variables = {**os.environ, "E2B_API_KEY": env.API_KEY, "E2B_API_URL": env.API_URL}
    return subprocess.run(
        [sys.executable, script], cwd=directory, env=variables, capture_output=True, text=True, timeout=150
    )


@pytest.mark.parametrize("language", ["python-sync", "python-async"])
def test_19_what_init_writes_builds(cli, tmp_path, name, language, api):
    cli.ok("template", "init", "-n", name, "-l", language, cwd=tmp_path)
    built = build(tmp_path / name, "build_dev.py")
    assert built.returncode == 0, built.stdout + built.stderr
    assert api.get(f"/templates/aliases/{name}-dev").status_code == 200


def test_20_what_migrate_writes_builds(cli, project, name, api):
    write(project, "ENV A=1", "WORKDIR /app", "COPY hello.txt /app/", "RUN echo it is $A > out")
    (project / "hello.txt").write_text("hello\n")
    (project / "e2b.toml").write_text(
        f'template_id = "abc"\ntemplate_name = "{name}"\ndockerfile = "e2b.Dockerfile"\n'
        'start_cmd = "sleep 7272"\nready_cmd = "true"\nmemory_mb = 512\ncpu_count = 2\n'
    )
    cli.ok("template", "migrate", "-p", str(project), "-l", "python-sync")
    assert (project / "e2b.toml.old").exists() and (project / "e2b.Dockerfile.old").exists()
    built = build(project, "build_prod.py")
    assert built.returncode == 0, built.stdout + built.stderr
    sandbox = cli.ok("sandbox", "create", "-d", name).strip()
    try:
        shown = cli.ok("sandbox", "exec", sandbox, "cat /app/hello.txt /app/out; pgrep -fa 'sleep 7272'")
        assert shown.startswith("hello\nit is 1\n") and "sleep 7272" in shown
    finally:
        cli.run("sandbox", "kill", sandbox)


def test_48_both_forms_of_the_project_file(project, name, tmp_path):
    cli = Program("own", tmp_path)
    directory = str(project)
    brief = ["-n", name, "-p", directory, "-d", "e2b.Dockerfile", "-c", "sleep 7373", "--ready-cmd", "true"]
    cli.ok("template", "build", *brief)
    flat = (project / "e2b.toml").read_text()
    assert 'start_cmd = "sleep 7373"' in flat and "[build]" not in flat
    reference = re.search(r'template_id = "(\w+)"', flat).group(1)
    (project / "e2b.toml").write_text(
        f'template_id = "{reference}"\ntemplate_name = "{name}"\n\n[build]\ncmd = "sleep 7474"\nready_cmd = "true"\n'
    )
    cli.ok("template", "build", "-p", directory)
    again = (project / "e2b.toml").read_text()
    assert f'template_id = "{reference}"' in again and 'start_cmd = "sleep 7474"' in again
    sandbox = cli.ok("sandbox", "spawn", "-d", "-p", directory).strip()
    try:
        assert cli.ok("sandbox", "exec", sandbox, "pgrep -fcx 'sleep 7474'") == "1\n"
    finally:
        cli.run("sandbox", "kill", sandbox)
    cli.ok("template", "build", name, "--path", directory, "--config", "e2b.toml")


def test_49_older_words_are_understood(project, name, tmp_path):
    cli = Program("own", tmp_path)
    assert isinstance(json.loads(cli.ok("templates", "list", "-f", "json")), list)
    cli.ok("templates", "init", name, "--language", "typescript", cwd=tmp_path)
    assert (tmp_path / name / "build.dev.ts").exists()
    cli.ok("template", "init", "--dockerfile", "-p", str(tmp_path))
    assert (tmp_path / "e2b.Dockerfile").read_text().startswith("FROM ")
    listed = cli.run("sandboxes", "list", "--json")
    assert listed.returncode == 0 and isinstance(json.loads(listed.stdout), list)
    note = cli.run("template", "list", env={"E2B_ACCESS_TOKEN": "sk_e2b_x"})
    assert note.returncode == 0 and "E2B_ACCESS_TOKEN is not used any more" in note.stderr


COMMAND = r"""printf '%s\n' "a \"b\" 'c' \\d	tab ${HOME} `id -u` é 日本 #{x} %s {y}" && echo 'it'"'"'s'"""


def steps_of(project, language):
    """What the program that was written describes, by the SDK itself."""
    if language == "typescript":
        (project / "node_modules").symlink_to(OFFICIAL.parents[3])
        # It has no types, but for its name.
        (project / "template.ts").rename(project / "template.mjs")
        script = (
            "import { template } from './template.mjs'; import { Template } from 'e2b';"
            "console.log(await Template.toJSON(template, false))"
        )
        command = ["node", "--input-type=module", "-e", script]
    else:
        kind = "AsyncTemplate" if language == "python-async" else "Template"
        script = (
            "import sys; sys.path.insert(0, '.'); from template import template;"
            f"from e2b import {kind}; print({kind}.to_json(template))"
        )
        command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["steps"]


@pytest.mark.parametrize("language", ["python-sync", "python-async", "typescript"])
def test_50_what_is_written_means_what_was_read(project, tmp_path, language):
    cli = Program("own", tmp_path)
    write(project, "ENV TEXT=\"it's \\\"quoted\\\" \\\\ here\"", f"RUN {COMMAND}", "RUN one && \\\n    two")
    cli.ok("template", "migrate", "-p", str(project), "-n", "x", "-l", language)
    steps = steps_of(project, language)
    commands = [step["args"][0] for step in steps if step["type"] == "RUN"]
    assert commands[0] == COMMAND
    assert re.fullmatch(r"one &&\s+two", commands[1].replace("\\\n", ""))
    (variables,) = [step["args"] for step in steps if step["type"] == "ENV"]
    assert variables == ["TEXT", "it's \"quoted\" \\ here"]
