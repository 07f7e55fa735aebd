"""The build API through the official client: uploads, logs, tags, publishing, deletion."""

import asyncio
import hashlib
import os
import socket
import time
from urllib.parse import urlsplit

import pytest
from e2b import AsyncTemplate, BuildException, Sandbox, Template, TemplateException

from support import env
from support.api import refused
from support.wait import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def name(unique, api):
    """A name for a template, which is deleted after the test."""
    name = f"api-{unique[:12]}"
    yield name
    api.delete(f"/templates/{name}")


def plain() -> Template:
    return Template().from_base_image()


def request(api, name: str) -> dict:
    answer = api.post("/v3/templates", json={"name": name})
    assert answer.status_code == 202, answer.text
    return answer.json()


def status_of(api, build, **query) -> dict:
    path = f"/templates/{build.template_id}/builds/{build.build_id}/status"
    answer = api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_line_of_the_log_arrives_once_and_in_order(name, api):
    lines = []
    template = plain().run_cmd("seq 1 1000 | sed 's/^/number /'").run_cmd("echo last step")
    build = Template.build(template, name, on_build_logs=lines.append)
    numbers = [line.message for line in lines if "number " in line.message]
    numbers = [message for message in numbers if "RUN" not in message]
    expected = [f"[builder 1/2] [stdout]: number {number}" for number in range(1, 1001)]
    assert numbers == expected
    assert lines[-2].message.startswith("Build finished, took "), lines[-2:]
    status = Template.get_build_status(build)
    assert len(status.log_entries) == 100
    whole = status_of(api, build, logsOffset=100_000)
    assert (whole["status"], whole["logEntries"]) == ("ready", [])
    assert whole["logs"] == []


def test_a_file_is_uploaded_once_for_the_team(name, tmp_path):
    content = os.urandom(64).hex()
    (tmp_path / "data.txt").write_text(content)

    def uploads(name: str, **options) -> list[str]:
        lines = []
        template = Template(file_context_path=tmp_path).from_base_image()
        template = template.copy("data.txt", "/data.txt", **options)
        Template.build(template, name, on_build_logs=lambda line: lines.append(line.message))
        return [line for line in lines if "pload" in line and "data.txt" in line]

    assert uploads(name) == ["Uploaded 'data.txt'"]
    assert uploads(name) == ["Skipping upload of 'data.txt', already cached"]
    assert uploads(name, force_upload=True) == ["Uploaded 'data.txt'"]
    with Sandbox.create(name, timeout=60) as sandbox:
        assert sandbox.files.read("/data.txt") == content


def test_an_upload_that_breaks_off_never_counts(name, api, unique):
    template = request(api, name)["templateID"]
    path = f"/templates/{template}/files/{hashlib.sha256(unique.encode()).hexdigest()}"

    def files() -> dict:
        answer = api.get(path)
        assert answer.status_code == 201, answer.text
        return answer.json()

    first = files()
    assert first["present"] is False
    url = first["url"]
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == env.API_URL, "it leads to where the client came"
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode() + b"x" * 500)
        time.sleep(0.2)
    assert files()["present"] is False
    with env.client("") as bare:
        refused(bare.get(url), 405)
        refused(bare.put(url.replace("signature=", "signature=0"), content=b"x"), 403)
        chunked = bare.put(url, content=iter([b"x"]))
        refused(chunked, 411)
        assert bare.put(url, content=b"whole").status_code == 200
    assert files()["present"] is True


def test_a_newer_build_cancels_the_running_one(name, api):
    marker = "sleep 300"
    old = Template.build_in_background(plain().run_cmd(marker), name)
    running = "[builder 1/1] RUN"
    until(
        lambda: any(running in entry["message"] for entry in status_of(api, old)["logEntries"]),
        "the first build is at its step",
        60,
    )
    new = Template.build(plain().run_cmd("true"), name)
    status = status_of(api, old)
    assert (status["status"], status["reason"]["message"]) == ("error", "build was cancelled")
    assert "step" not in status["reason"]
    assert status_of(api, new)["status"] == "ready"
    offset = len(status["logEntries"])
    assert status_of(api, old, logsOffset=offset)["logEntries"] == [], "it says nothing more"


def test_failures_point_at_the_line_of_the_program(name):
    with pytest.raises(BuildException, match="^template 'no-such-thing' not found$"):
        Template.build(Template().from_template("no-such-thing"), name)
    template = plain().run_cmd("true")
    template = template.run_cmd("exit 7")  # this line
    with pytest.raises(BuildException) as failure:
        Template.build(template, name)
    assert str(failure.value) == "failed to run command 'exit 7': exit status 7"
    deepest = failure.traceback[-1]
    assert "this line" in str(deepest.statement), deepest


def test_tags(name):
    first = Template.build(plain(), f"{name}:v1")
    assert first.tags == ["v1"]
    assert Template.exists(f"{name}:v1") and not Template.exists(f"{name}:v2")
    with pytest.raises(Exception, match=f"tag 'default' does not exist for template '.*{name}'"):
        Sandbox.create(name)
    moved = Template.assign_tags(f"{name}:v1", ["default", "stable"])
    assert moved.build_id == first.build_id
    second = Template.build(plain(), name)
    tags = {tag.tag: tag.build_id for tag in Template.get_tags(name)}
    expected = {"default": second.build_id, "stable": first.build_id, "v1": first.build_id}
    assert tags == expected
    Template.remove_tags(name, "stable")
    assert not Template.exists(f"{name}:stable")
    with pytest.raises(TemplateException, match="Cannot delete the 'default' tag"):
        Template.remove_tags(name, "default")


def test_deletion(name, api):
    build = Template.build(plain(), name)
    with Sandbox.create(name, timeout=60):
        text = f"cannot delete template '{build.template_id}' because there are running"
        refused(api.delete(f"/templates/{name}"), 400, text)
    assert api.delete(f"/templates/{name}").status_code == 204
    assert not Template.exists(name)
    assert request(api, name)["templateID"] != build.template_id
    refused(api.post("/v3/templates", json={"name": build.template_id}), 409, "already used")


def test_a_public_template_is_there_for_other_teams(name, api):
    other = env.optional("WARREN_OTHER_API_KEY")
    if not other:
        pytest.skip("WARREN_OTHER_API_KEY is not set")
    build = Template.build(plain(), name)
    answer = api.patch(f"/v2/templates/{name}", json={"public": True})
    assert answer.status_code == 200, answer.text
    (full,) = answer.json()["names"]
    Sandbox.create(full, timeout=30, api_key=other).kill()
    # One of another team's exists as well, if its name is everybody's.
    assert Template.exists("base", api_key=other)
    assert not Template.exists(name, api_key=other)
    with env.client(env.API_URL, headers={"X-API-Key": other}) as stranger:
        refused(stranger.delete(f"/templates/{build.template_id}"), 403)
        refused(stranger.delete(f"/templates/{name}"), 404)
        assert name not in str(stranger.get("/templates").json())
    api.patch(f"/v2/templates/{name}", json={"public": False})
    with pytest.raises(Exception, match=f"template '{full}' not found"):
        Sandbox.create(full, timeout=30, api_key=other)


def test_variables_reach_sandboxes_below_their_own(name):
    Template.build(plain().set_envs({"A": "of the template", "B": "of the template"}), name)
    with Sandbox.create(name, timeout=60, envs={"B": "of the sandbox"}) as sandbox:
        seen = sandbox.commands.run('echo "$A, $B"').stdout
    assert seen == "of the template, of the sandbox\n"


def test_async_clients_build_too(name):
    async def build():
        template = AsyncTemplate().from_base_image().run_cmd("true")
        return await AsyncTemplate.build(template, name)

    assert asyncio.run(build()).tags == ["default"]


def test_bodies_that_are_no_requests(api):
    refused(api.post("/v3/templates", content=b"{"), 400, "Invalid request body:")
    refused(api.post("/v3/templates", json={"name": 1}), 400, "validation error")
    refused(api.post("/v3/templates", json={"name": "a b"}), 400, "Invalid name: ")
