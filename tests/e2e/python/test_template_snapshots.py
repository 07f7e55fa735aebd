"""Builds that start from snapshots of sandboxes, and builds that run side by side."""

import pytest
from e2b import Sandbox, Template, wait_for_file

from support.wait import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def name(unique, api):
    """A name for a template, which is deleted after the test."""
    name = f"snap-{unique[:12]}"
    yield name
    api.delete(f"/templates/{name}")


def build(template, name: str, **options) -> list[str]:
    lines = []
    Template.build(template, name, on_build_logs=lambda line: lines.append(line.message), **options)
    return lines


def output(lines: list[str], step: int) -> list[str]:
    marks = [f"[builder {step}/", "] [stdout]: "]
    return [line.split(marks[1], 1)[1] for line in lines if marks[0] in line and marks[1] in line]


def test_a_build_starts_from_a_snapshot(name):
    with Sandbox.create(timeout=120, envs={"OWN": "of the sandbox"}) as sandbox:
        sandbox.commands.run("echo kept > kept; rm .profile; sudo mkdir -p /srv/deep")
        sandbox.commands.run("echo gone > /tmp/gone; sudo rm -r /usr/share/doc")
        sandbox.commands.run("sleep 600", background=True)
        snapshot = sandbox.create_snapshot()
    try:
        show = "cat kept; ls .profile /usr/share/doc 2>&1 | grep -c No; ls -d /srv/deep; id -un; pwd"
        template = Template().from_template(snapshot.snapshot_id).run_cmd(f"{show}; echo \"[$OWN]\"")
        lines = build(template, name)
        # Variables of the sandbox alone, which may be secrets, are no part of it.
        assert output(lines, 1) == ["kept", "2", "/srv/deep", "user", "/home/user", "[]"]
        again = build(template, name)
        assert any(line.startswith("CACHED [base] FROM TEMPLATE ") for line in again)
        assert any(line.startswith("CACHED [builder 1/1] ") for line in again)
    finally:
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
    # It is a template of its own by now.
    with Sandbox.create(name, timeout=60) as sandbox:
        assert sandbox.files.read("/home/user/kept") == "kept\n"
        assert not sandbox.files.exists("/tmp/gone")
    with pytest.raises(Exception, match="not found"):
        build(Template().from_template(snapshot.snapshot_id), name)


def test_a_snapshot_hands_down_what_its_template_had(name, api):
    child = f"{name}-child"
    parent = (
        Template()
        .from_base_image()
        .set_envs({"ONE": "1", "PATH": "${PATH}:/my/path"})
        .set_workdir("/srv/app")
        .set_start_cmd("echo $ONE $PWD $(cat /srv/app/late) > /tmp/up; sleep 600", wait_for_file("/tmp/up"))
    )
    try:
        build(parent, name)
        with Sandbox.create(name, timeout=120) as sandbox:
            sandbox.commands.run("echo written > late")
            snapshot = sandbox.create_snapshot(name=f"{name}-taken:v1")
        try:
            assert snapshot.snapshot_id.endswith(f"{name}-taken:v1")
            template = Template().from_template(f"{name}-taken:v1")
            template = template.run_cmd("echo $ONE $PWD; [[ $PATH == *:/my/path* ]] && cat late")
            lines = build(template, child)
            assert output(lines, 1) == ["1 /srv/app", "written"]
            assert "Template is ready" in lines
            with Sandbox.create(child, timeout=60) as sandbox:
                assert sandbox.commands.run("cat /tmp/up").stdout == "1 /srv/app written\n"
        finally:
            Sandbox.delete_snapshot(snapshot.snapshot_id)
    finally:
        api.delete(f"/templates/{child}")


def finished(api, builds) -> list[list[str]]:
    """The messages of builds in the background, once they are all ready."""
    logs = []
    for build in builds:
        path = f"/templates/{build.template_id}/builds/{build.build_id}/status"

        def status(path=path) -> dict | None:
            answer = api.get(path).json()
            return answer if answer["status"] in ("ready", "error") else None

        ended = until(status, "a build ends", 120)
        assert ended["status"] == "ready", ended
        logs.append([entry["message"] for entry in ended["logEntries"]])
    return logs


def made_in(template: str) -> str:
    with Sandbox.create(template, timeout=60) as sandbox:
        return sandbox.files.read("/home/user/made")


def once(unique: str) -> Template:
    """A step whose result is another each time that it runs."""
    command = f": {unique}; sleep 2; head -c 16 /dev/urandom | od -An -tx1 > made"
    return Template().from_base_image().run_cmd(command)


def cached(lines: list[str], step: int) -> bool:
    return any(line.startswith(f"CACHED [builder {step}/") for line in lines)


def test_two_builds_of_one_template_at_once(name, api, unique):
    template = once(unique)
    tags = [f"{name}:a", f"{name}:b"]
    builds = [Template.build_in_background(template, tag) for tag in tags]
    assert builds[0].template_id == builds[1].template_id
    logs = finished(api, builds)
    # Whoever came second waited for the first and took its layer.
    assert sorted(cached(lines, 1) for lines in logs) == [False, True]
    assert made_in(tags[0]) == made_in(tags[1])


def test_two_templates_make_the_step_that_they_share_once(name, api, unique):
    names = [name, f"{name}-other"]
    try:
        builds = [
            Template.build_in_background(once(unique).run_cmd(f"echo {each} > own"), each)
            for each in names
        ]
        assert builds[0].template_id != builds[1].template_id
        logs = finished(api, builds)
        assert sorted(cached(lines, 1) for lines in logs) == [False, True]
        assert not any(cached(lines, 2) for lines in logs)
        assert made_in(names[0]) == made_in(names[1])
    finally:
        api.delete(f"/templates/{names[1]}")
