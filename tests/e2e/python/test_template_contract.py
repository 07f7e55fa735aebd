"""Builds through the official client: ready helpers, packages, where failures point to,
archives that mean harm."""

import gzip
import hashlib
import io
import tarfile
import traceback

import pytest
from e2b import (
    BuildException,
    Sandbox,
    Template,
    wait_for_file,
    wait_for_port,
    wait_for_process,
    wait_for_timeout,
    wait_for_url,
)

from support.api import refused
from support.wait import until

pytestmark = pytest.mark.timeout(300)
HOST_CA = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture
def name(unique, api):
    """A name for a template, which is deleted after the test."""
    name = f"contract-{unique[:12]}"
    yield name
    api.delete(f"/templates/{name}")


def base() -> Template:
    return Template().from_base_image()


def failure(template, name: str) -> tuple[str, str]:
    """The message of a build that fails, and the line of this file that it points to."""
    with pytest.raises(BuildException) as caught:
        Template.build(template, name)
    frames = traceback.extract_tb(caught.value.__traceback__)
    return str(caught.value), frames[-1].line


@pytest.mark.parametrize(
    "start, ready",
    [
        ("python3 -m http.server 8124", wait_for_port(8124)),
        ("python3 -m http.server 8124", wait_for_url("http://localhost:8124/", 200)),
        ("exec -a patient-one sleep 600", wait_for_process("sleep")),
        ("sleep 1; touch /tmp/up; sleep 600", wait_for_file("/tmp/up")),
        ("sleep 600", wait_for_timeout(1500)),
    ],
    ids=["port", "url", "process", "file", "timeout"],
)
def test_a_ready_helper_works_on_the_default_base(name, start, ready):
    lines = []
    template = base().set_start_cmd(start, ready)
    Template.build(template, name, on_build_logs=lambda line: lines.append(line.message))
    assert "Template is ready" in lines
    with Sandbox.create(name, timeout=60) as sandbox:
        # What was waited for is there once the create returns.
        checked = sandbox.commands.run(ready.get_cmd(), user="root")
        assert checked.exit_code == 0
        assert sandbox.commands.run("pgrep -c 'sleep|python3'", user="root").stdout != "0\n"


def test_a_template_that_only_waits(name):
    template = base().set_ready_cmd(wait_for_file("/etc/hostname"))
    Template.build(template, name)
    with Sandbox.create(name, timeout=60) as sandbox:
        assert sandbox.commands.run("cat /etc/hostname").stdout == "e2b.local\n"


def test_packages_of_every_kind_install(name, tmp_path):
    # The machine may reach the registries through a private authority.
    with open(HOST_CA, "rb") as bundle:
        (tmp_path / "ca.pem").write_bytes(bundle.read())
    trust = "/opt/ca.pem"
    template = (
        Template(file_context_path=str(tmp_path))
        .from_base_image()
        .copy("ca.pem", trust)
        .set_envs({"PIP_CERT": trust, "NODE_EXTRA_CA_CERTS": trust})
        .pip_install("six")
        .apt_install("tree")
        .npm_install("left-pad", g=True)
    )
    Template.build(template, name)
    with Sandbox.create(name, timeout=60) as sandbox:
        look = (
            "python --version; python -c 'import six; print(six.PY3)'; tree --version | cut -c1-4;"
            " ls \"$(npm root -g)\" | grep left-pad"
        )
        version, six, tree, pad = sandbox.commands.run(look).stdout.splitlines()
        assert version.startswith("Python 3.")
        assert (six, tree, pad) == ("True", "tree", "left-pad")


def test_a_copy_of_several_is_several_steps(name, tmp_path):
    for file in ("a.txt", "b.txt"):
        (tmp_path / file).write_text(file)
    template = Template(file_context_path=str(tmp_path)).from_base_image()
    template = template.copy(["a.txt", "b.txt"], "/srv/")
    template = template.run_cmd("cat /srv/missing")  # the third
    with pytest.raises(BuildException) as caught:
        Template.build(template, name)
    assert "the third" in str(caught.traceback[-1].statement)
    build = Template.build_in_background(template, name)
    status = until(
        lambda: (found := Template.get_build_status(build)).status.value == "error" and found,
        "the build fails",
        60,
    )
    assert status.reason.step == "3"
    assert status.reason.message == (
        "failed to run command 'cat /srv/missing': exit status 1"
    )


def test_failures_point_to_their_lines(name):
    message, line = failure(
        Template()
        .from_image("localhost:1/no/such:image")  # from
        .run_cmd("true"),
        name,
    )
    assert message.startswith("failed to pull image 'localhost:1/no/such:image': ")
    assert line.endswith("# from")
    template = base().run_cmd("true")
    template = template.set_start_cmd("exit 4", "false")  # start
    message, line = failure(template, name)
    assert message == "start command failed: error running start command: exit status 4"
    assert line.endswith("# start")
    for bad, start in [
        (lambda t: t.set_user("; exit 1"), "failed to create user: exit status"),  # user
        (lambda t: t.set_workdir("/root/.bashrc"), "failed to create workdir: "),  # workdir
        (lambda t: t.make_dir(".bashrc"), "failed to run command"),  # dir
        (lambda t: t.make_symlink(".bashrc", ".bashrc"), "failed to run command"),  # link
    ]:
        message, line = failure(bad(base().run_cmd("true")), name)
        assert message.startswith(start)
        assert line.endswith(("# user", "# workdir", "# dir", "# link")), line


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(packed.getvalue())


def entry(path: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.mode = kind, link, 0o644
    return info


@pytest.mark.parametrize(
    "content",
    [
        archive((entry("a/../../escaped"), b"x")),
        archive((entry("/escaped"), b"x")),
        archive((entry("a/out", tarfile.SYMTYPE, "/etc"), b""), (entry("a/out/escaped"), b"x")),
        archive((entry("a/hard", tarfile.LNKTYPE, "/etc/passwd"), b"")),
        archive((entry("a/node", tarfile.BLKTYPE), b"")),
        b"no archive at all" * 100,
    ],
    ids=["dots", "absolute", "link", "hardlink", "device", "junk"],
)
def test_a_hostile_archive_fails_its_step(name, api, unique, content):
    build = api.post("/v3/templates", json={"name": name}).json()
    hashed = hashlib.sha256(unique.encode()).hexdigest()
    place = api.get(f"/templates/{build['templateID']}/files/{hashed}").json()
    assert api.put(place["url"], content=content).status_code == 200
    path = f"/v2/templates/{build['templateID']}/builds/{build['buildID']}"
    step = {"type": "COPY", "args": ["a", "/srv/a", "", ""], "filesHash": hashed, "new": 1}
    answer = api.post(path, json={"fromImage": "e2bdev/base", "steps": [step]})
    assert (answer.status_code, answer.text) == (202, "")
    refused(api.post(path, json={"fromImage": "e2bdev/base"}), 400, "not in waiting state")
    status_path = f"/templates/{build['templateID']}/builds/{build['buildID']}/status"
    first = api.get(status_path).json()
    assert first["status"] in ("building", "error")
    status = until(
        lambda: (found := api.get(status_path).json())["status"] == "error" and found,
        "the build fails",
        60,
    )
    assert status["reason"]["step"] == "1"
    assert status["reason"]["message"].startswith(
        ("failed to extract files: ", "failed to move files in sandbox: ")
    )
    # Offsets count what the filter lets through.
    errors = api.get(status_path, params={"level": "error"}).json()["logEntries"]
    assert [entry["level"] for entry in errors] == ["error"]
    rest = api.get(status_path, params={"level": "error", "logsOffset": 1}).json()
    assert rest["logEntries"] == []


def test_sources_that_are_none_or_two(name, api):
    for body, told in [
        ({"steps": []}, "fromImage or fromTemplate must be set"),
        ({"fromImage": "e2bdev/base", "fromTemplate": "base"}, "only one of"),
    ]:
        build = api.post("/v3/templates", json={"name": name}).json()
        pair = f"{build['templateID']}/builds/{build['buildID']}"
        refused(api.post(f"/v2/templates/{pair}", json=body), 500, told)
        status = api.get(f"/templates/{pair}/status").json()
        assert status["status"] == "error"
        assert status["reason"]["message"].startswith("error when building env: ")


def test_a_template_without_a_ready_build_is_listed_as_such(name, api):
    made = api.post("/v3/templates", json={"name": name}).json()
    for listed in (api.get("/templates"), api.get("/v2/templates")):
        (item,) = [t for t in listed.json() if t["templateID"] == made["templateID"]]
        assert item["buildID"] == "00000000-0000-0000-0000-000000000000"
        assert (item["cpuCount"], item["memoryMB"], item["diskSizeMB"]) == (0, 0, 0)
        assert (item["envdVersion"], item["buildStatus"]) == ("", "waiting")
        assert item["aliases"] == [name]


def test_a_template_that_a_paused_sandbox_needs_stays(name, api):
    build = Template.build(base(), name)
    sandbox = Sandbox.create(name, timeout=60)
    try:
        sandbox.pause()
        text = f"cannot delete template '{build.template_id}' because there are paused"
        refused(api.delete(f"/templates/{name}"), 400, text)
    finally:
        sandbox.kill()
    assert api.delete(f"/templates/{name}").status_code == 204


def test_lists_come_in_pages(name, api):
    made = []
    names = [f"{name}-{number}" for number in range(5)]
    for each in names:
        made.append(api.post("/v3/templates", json={"name": each}).json()["templateID"])
    try:
        seen, token, pages = [], None, 0
        while True:
            query = {"limit": 2} | ({"nextToken": token} if token else {})
            page = api.get("/v2/templates", params=query)
            assert page.status_code == 200, page.text
            pages += 1
            items = page.json()
            assert 1 <= len(items) <= 2
            seen += [item["templateID"] for item in items]
            token = page.headers.get("x-next-token")
            # What others make meanwhile is newer than this page.
            if not token or set(made) <= set(seen):
                break
        assert pages >= 3
        # Newest first, each once.
        assert [each for each in seen if each in made] == made[::-1]
        # The first generation of the route has no pages, and the oldest first.
        whole = [item["templateID"] for item in api.get("/templates").json()]
        assert [each for each in whole if each in made] == made
    finally:
        for each in names:
            api.delete(f"/templates/{each}")


def test_lists_that_make_no_sense(api, unique):
    refused(api.get("/v2/templates", params={"nextToken": "x"}), 400, "Invalid next token")
    for limit in (0, 101, "x"):
        refused(api.get("/v2/templates", params={"limit": limit}), 400)
    for route in ("/templates", "/v2/templates"):
        told = "Team ID param mismatch with the API key"
        refused(api.get(route, params={"teamID": unique}), 400, told)


def test_credentials_of_every_kind_are_understood(name):
    image = "localhost:1/team/image"
    aws = Template().from_aws_registry(image, "AKIDEXAMPLE", "the-key", "no.region")
    message, _ = failure(aws, name)
    assert message == f"failed to pull image '{image}': \"no.region\" is no AWS region"
    gcp = Template().from_gcp_registry(image, {"type": "service_account"})
    plain = Template().from_image(image, username="me", password="secret")
    for template in (gcp, plain):
        message, _ = failure(template, name)
        assert message.startswith(f"failed to pull image '{image}': "), message
