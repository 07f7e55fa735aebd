"""What steps do, through the official client: copies, variables, users, cache, inheritance."""

import pytest
from e2b import BuildException, Sandbox, Template, wait_for_file, wait_for_port

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def name(unique, api):
    """A name for a template, which is deleted after the test."""
    name = f"steps-{unique[:12]}"
    yield name
    api.delete(f"/templates/{name}")


def build(template, name: str, **options) -> list[str]:
    lines = []
    Template.build(template, name, on_build_logs=lambda line: lines.append(line.message), **options)
    return lines


def output(lines: list[str], step: int) -> list[str]:
    marks = [f"[builder {step}/", "] [stdout]: "]
    return [line.split(marks[1], 1)[1] for line in lines if marks[0] in line and marks[1] in line]


def fails(template, name: str) -> str:
    with pytest.raises(BuildException) as caught:
        Template.build(template, name)
    return str(caught.value)


def test_copies_keep_files_links_and_modes(name, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "sub" / ".dot").write_text("dot")
    (tree / "skipped.log").write_text("x")
    (tree / "link").symlink_to("run.sh")
    (tree / "dangling").symlink_to("/nowhere")
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    template = (
        Template(file_context_path=str(tmp_path))
        .from_base_image()
        .set_workdir("/srv/app")
        .copy("tree", "tree")
        .copy(["one.txt"], "/opt/", user="root", mode=0o640)
        .copy("tree/*.sh", "/srv/globbed/")
        .run_cmd("./tree/link; cat tree/sub/.dot; echo; readlink tree/dangling; ls -A tree")
        .run_cmd("stat -c '%U %a' /opt/one.txt tree/run.sh . ../globbed/run.sh", user="root")
    )
    lines = build(template, name, skip_cache=True)
    assert output(lines, 5) == ["ran", "dot", "/nowhere", "dangling", "link", "run.sh", "sub"]
    assert output(lines, 6) == ["root 640", "user 755", "user 755", "user 755"]
    with Sandbox.create(name, timeout=60) as sandbox:
        assert sandbox.commands.run("pwd; cat tree/sub/.dot").stdout == "/srv/app\ndot"


def test_a_plain_archive_builds(name, tmp_path):
    (tmp_path / "f.txt").write_text("plain")
    template = (
        Template(file_context_path=str(tmp_path))
        .from_base_image()
        .copy("f.txt", "g.txt", gzip=False)
        .run_cmd("cat ~/g.txt")
    )
    assert output(build(template, name, skip_cache=True), 2) == ["plain"]


def test_variables_are_verbatim_and_expand_in_order(name):
    odd = "a 'b' \"c\" \\d `id` $(id)\n-----END KEY-----"
    template = (
        Template()
        .from_base_image()
        .set_envs({"A": "1", "B": "$A-${A}", "ODD": odd})
        .set_envs({"C": "${B}/c", "PATH": "${PATH}:/my/path"})
        .run_cmd('echo "$C"; [[ $PATH == *:/my/path ]] && echo extended')
        .run_cmd(f"[ \"$ODD\" = \"$(cat <<'END'\n{odd}\nEND\n)\" ] && echo verbatim")
    )
    lines = build(template, name, skip_cache=True)
    assert output(lines, 3) == ["1-1/c", "extended"]
    assert output(lines, 4) == ["verbatim"]


def test_the_first_user_and_later_ones(name):
    template = (
        Template()
        .from_base_image()
        .run_cmd("id -un; id -u; pwd; sudo -n id -u")
        .run_cmd("id -un", user="root")
        .run_cmd("id -un")
        .set_user("other")
        .run_cmd("id -un; pwd")
    )
    lines = build(template, name, skip_cache=True)
    assert output(lines, 1) == ["user", "1000", "/home/user", "0"]
    assert [output(lines, step) for step in (2, 3, 5)] == [
        ["root"],
        ["user"],
        ["other", "/home/other"],
    ]
    with Sandbox.create(name, timeout=60) as sandbox:
        assert sandbox.commands.run("whoami").stdout == "other\n"


def test_what_must_fail_fails_at_its_own_step(name):
    def base():
        return Template().from_base_image()

    assert fails(base().run_cmd("whoami", user="root123"), name) == (
        "failed to run command 'whoami': command failed: unauthenticated: "
        "invalid username: 'root123'"
    )
    assert fails(base().set_user("; exit 1"), name).startswith("failed to create user: exit status")
    assert fails(base().set_workdir("/root/.bashrc"), name) == (
        "failed to create workdir: exit status 1"
    )
    assert fails(base().make_dir(".bashrc"), name).startswith("failed to run command 'mkdir")
    assert fails(base().make_symlink(".bashrc", ".bashrc"), name).startswith("failed to run command")
    missing = fails(Template().from_image("python:3.12"), name)
    assert missing.startswith("image 'python:3.12' not found: ") and "3.13" in missing


def test_layers_are_used_again_until_forced(name):
    def template(third: str, skip: bool = False) -> Template:
        start = Template().from_base_image().run_cmd(f"echo {name} > one").run_cmd("echo 2 > two")
        return (start.skip_cache() if skip else start).run_cmd(third).run_cmd("cat one two")

    def cached(lines: list[str]) -> list[int]:
        return [step for step in range(1, 5) if any(f"CACHED [builder {step}/" in l for l in lines)]

    build(template("true"), name)
    assert cached(build(template("true"), name)) == [1, 2, 3, 4]
    assert cached(build(template("true"), name, memory_mb=512, cpu_count=1)) == [1, 2, 3, 4]
    assert cached(build(template("echo other"), name)) == [1, 2]
    assert cached(build(template("true", skip=True), name)) == [1, 2]
    assert cached(build(template("true"), name, skip_cache=True)) == []


def test_children_inherit_variables_directory_and_commands(name, api):
    middle, last = f"{name}-b", f"{name}-c"
    try:
        parent = (
            Template()
            .from_base_image()
            .set_envs({"ONE": "1"})
            .set_workdir("/srv")
            .set_user("root")
            .set_start_cmd("echo $ONE $PWD $(whoami) > /tmp/started; sleep 600", wait_for_file("/tmp/started"))
        )
        build(parent, name)
        build(Template().from_template(name).set_envs({"TWO": "2"}), middle)
        show = "echo $ONE$TWO; pwd; whoami"
        lines = build(Template().from_template(middle).run_cmd(show), last, skip_cache=True)
        assert output(lines, 1) == ["12", "/srv", "user"]
        assert any(line.startswith("CACHED [base] FROM TEMPLATE") for line in lines)
        with Sandbox.create(last, timeout=60) as sandbox:
            # The parent's command runs in the parent's context.
            assert sandbox.commands.run("cat /tmp/started", user="root").stdout == "1 /srv root\n"
    finally:
        for child in (middle, last):
            api.delete(f"/templates/{child}")


def test_start_and_ready_commands_are_told_in_order(name):
    template = (
        Template()
        .from_base_image()
        .set_start_cmd("echo serving; python3 -m http.server 8123", wait_for_port(8123))
    )
    lines = build(template, name)
    marks = ["Running start command: ", "[start] [stdout]: serving", "Template is ready"]
    places = [next(n for n, line in enumerate(lines) if line.startswith(mark)) for mark in marks]
    assert places == sorted(places)
    with Sandbox.create(name, timeout=60) as sandbox:
        code = sandbox.commands.run("curl -s -o /dev/null -w '%{http_code}' localhost:8123").stdout
        assert code == "200"
    bad = Template().from_base_image().set_start_cmd("exit 4", "false")
    assert fails(bad, name) == "start command failed: error running start command: exit status 4"


def test_what_a_finished_template_looks_like(name):
    build(Template().from_base_image().run_cmd("mkdir -p /usr/local/x; touch /code-test", user="root"), name)
    with Sandbox.create(name, timeout=60) as sandbox:
        look = "stat -c '%a %n' /code /usr/local /usr/local/x; stat -c %U /home/user; hostname; cat /.e2b"
        lines = sandbox.commands.run(look).stdout.splitlines()
        assert lines[:5] == ["777 /code", "777 /usr/local", "777 /usr/local/x", "user", "e2b.local"]
        keys = [line.split("=")[0] for line in lines[5:]]
        assert keys == ["ENV_ID", "TEMPLATE_ID", "BUILD_ID"]


def test_a_rebuild_without_changes_comes_from_the_cache(name):
    template = Template().from_base_image()
    for step in range(10):
        template = template.run_cmd(f"echo {step} > step-{step}")
    build(template, name)
    lines = build(template, name)
    assert sum(line.startswith("CACHED [builder ") for line in lines) == 10
