"""Templates built from the terminal."""

import json
import os
import subprocess
import uuid

import pytest

WARREN = os.environ.get("WARREN_BIN")

pytestmark = pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program")


def warren(*words, **options):
    return subprocess.run(
        [WARREN, *words], capture_output=True, text=True, timeout=170, stdin=subprocess.DEVNULL, **options
    )


@pytest.fixture
def name():
    name = f"cli-{uuid.uuid4().hex[:12]}"
    yield name
    warren("template", "delete", name, "-y")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM e2bdev/base\n"
        "# the files\n"
        "COPY --chown=user:user src/*.txt /app/\n"
        "RUN echo 'it is' > /app/b.txt && \\\n"
        "    cat /app/a.txt\n"
        "WORKDIR /app\n"
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.txt").write_text("hello\n")
    (tmp_path / "src/left.out").write_text("no\n")
    return tmp_path


def test_a_dockerfile_becomes_a_template(project, name):
    built = warren("template", "create", name, "-p", str(project), "--no-cache")
    assert built.returncode == 0, built.stderr
    assert f"✅ Building sandbox template {name} finished." in built.stdout
    assert "[stdout]: hello" in built.stdout
    assert name in warren("tpl", "ls").stdout
    made = warren("sandbox", "create", "-d", name)
    sandbox = made.stdout.strip()
    try:
        shown = warren("sandbox", "exec", sandbox, "pwd; cat a.txt b.txt; stat -c %U a.txt; ls")
        assert shown.stdout == "/app\nhello\nit is\nuser\na.txt\nb.txt\n"
        refused = warren("template", "delete", name, "-y")
        assert refused.returncode == 1 and "running sandboxes" in refused.stderr
    finally:
        warren("sandbox", "kill", sandbox)
    assert warren("template", "delete", name, "-y").returncode == 0
    again = warren("template", "delete", name, "-y")
    assert (again.returncode, again.stderr) == (1, f"error: template '{name}' not found\n")


def test_a_failing_step_is_told_with_its_number(project, name):
    (project / "Dockerfile").write_text("FROM e2bdev/base\nRUN echo going; exit 7\n")
    failed = warren("template", "create", name, "-p", str(project))
    assert failed.returncode == 1
    assert "❌ Template build failed." in failed.stdout
    assert failed.stderr == (
        "error: failed to run command 'echo going; exit 7': exit status 7 (step 3)\n"
    )


def test_a_project_file_is_written_and_built_again(project, name):
    first = warren(
        "template", "build", "-n", name, "-p", str(project), "--cpu-count", "4", "--memory-mb", "512"
    )
    assert first.returncode == 0, first.stderr
    written = (project / "e2b.toml").read_text()
    assert f'template_name = "{name}"' in written and "memory_mb = 512" in written
    second = warren("template", "build", "-p", str(project))
    assert second.returncode == 0, second.stderr
    assert "CACHED [builder 4/" in second.stdout
    assert (project / "e2b.toml").read_text() == written
    assert warren("template", "publish", "-y", "-p", str(project)).stdout.count("Published as: ") == 1
    assert warren("template", "unpublish", "-y", "-p", str(project)).returncode == 0
    assert warren("template", "delete", "-y", "-p", str(project)).returncode == 0
    assert not (project / "e2b.toml").exists()


def test_a_template_goes_out_as_an_image_and_comes_back(tmp_path, name):
    (tmp_path / "Dockerfile").write_text(
        "FROM debian:stable\n"
        "RUN echo kept > /srv/kept && chown user:user /srv\n"
        "ENV GREETING='good day'\n"
        "WORKDIR /srv\n"
        "USER user\n"
    )
    start = ["-c", "touch /tmp/started; sleep 600", "--ready-cmd", "[ -f /tmp/started ]"]
    made = warren("template", "create", name, "-p", str(tmp_path), *start)
    assert made.returncode == 0, made.stderr
    file = tmp_path / "image.tar"
    out = warren("template", "export", name, "--output", str(file), "--json")
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == {"file": str(file), "bytes": file.stat().st_size}
    assert [path.name for path in tmp_path.glob("image*")] == ["image.tar"]
    again = f"{name}-again"
    try:
        back = warren("template", "import", str(file), "--name", again, "--memory-mb", "512", "--json")
        assert back.returncode == 0, back.stderr
        assert json.loads(back.stdout)["templateID"]
        sandbox = warren("sandbox", "create", "-d", again).stdout.strip()
        shown = warren("sandbox", "exec", sandbox, "pwd; whoami; cat kept; echo $GREETING; ls /tmp")
        assert shown.stdout.split("\n")[:5] == ["/srv", "user", "kept", "good day", "started"]
        warren("sandbox", "kill", sandbox)
    finally:
        warren("template", "delete", again, "-y")
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    bad = warren("template", "import", str(tmp_path / "junk.tar"), "--name", again)
    assert (bad.returncode, bad.stdout) == (1, "")
    missing = warren("template", "export", "no-such-template", "-o", str(tmp_path / "x.tar"))
    assert missing.returncode == 1 and "not found" in missing.stderr
    assert not list(tmp_path.glob("x.tar*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Bad Name"], "is not valid"),
        (["x", "--memory-mb", "1001"], "must be an even number"),
        (["x", "-c", "sleep 1"], "Both start and ready commands must be provided."),
        (["x"], "no e2b.Dockerfile or Dockerfile"),
    ],
)
def test_what_can_not_be_built_is_refused_here(tmp_path, words, told):
    refused = warren("template", "create", *words, "-p", str(tmp_path))
    assert refused.returncode == 1
    assert told in refused.stderr
