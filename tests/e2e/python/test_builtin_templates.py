"""Templates that come with the server, built by it through its own API."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from e2b import Template

from support.server import Server
from support.wait import until


@pytest.fixture
def server(tmp_path):
    """A server of the test's own."""
    server = Server(tmp_path)
    yield server
    server.clear()


def tags(server, name) -> dict[str, str]:
    return {tag.tag: tag.build_id for tag in Template.get_tags(name, **server.options)}


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_an_http_server_and_a_shell(server):
    server.start("--warm", "0", "--templates", "httpbin,ubuntu", "--wait-templates", seconds=500)
    with server.create(template="httpbin") as sandbox:
        # It answers as soon as the create has returned.
        answer = json.loads(sandbox.commands.run("curl -fs localhost:8000/get?a=b").stdout)
        assert answer["args"] == {"a": "b"}
        with server.api() as api:
            headers = {"e2b-sandbox-id": sandbox.sandbox_id, "e2b-sandbox-port": "8000"}
            seen = api.post("/post", content=b"sent", headers=headers)
        assert (seen.status_code, seen.json()["data"]) == (200, "sent")
    with server.create(template="ubuntu") as sandbox:
        assert sandbox.commands.run("whoami; git --version").stdout.startswith("user\ngit version")
    built = tags(server, "httpbin")
    server.stop()
    # They are there, so nothing is built again, and a name that a user took is left alone.
    server.start("--warm", "0", "--templates", "httpbin,ubuntu", "--wait-templates")
    assert tags(server, "httpbin") == built
    Template.build(Template().from_base_image(), "golang", **server.options)
    mine = tags(server, "golang")
    server.stop()
    server.start("--warm", "0", "--templates", "golang", "--wait-templates")
    assert tags(server, "golang") == mine


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_desktop_through_its_own_client(server):
    from e2b_desktop import Sandbox

    server.start("--warm", "0", "--templates", "desktop", "--wait-templates", seconds=800)
    desktop = Sandbox.create(timeout=300, **server.options)
    try:
        shot = desktop.screenshot()
        assert bytes(shot[:8]) == b"\x89PNG\r\n\x1a\n"
        assert desktop.get_screen_size() == (1024, 768)
        desktop.move_mouse(200, 300)
        assert desktop.get_cursor_position() == (200, 300)
        desktop.left_click(400, 400)
        desktop.press("esc")
        desktop.launch("xfce4-terminal")
        (window,) = until(
            lambda: windows(desktop, "xfce4-terminal"), "a terminal is on the screen", 30
        )
        assert "Terminal" in desktop.get_window_title(window)
        until(lambda: typed(desktop), "what is typed arrives", 30)
        assert desktop.screenshot() != shot
        desktop.stream.start(require_auth=True)
        key = desktop.stream.get_auth_key()
        assert desktop.stream.get_url(auth_key=key).endswith(f"password={key}")
        with server.api() as api:
            headers = {"e2b-sandbox-id": desktop.sandbox_id, "e2b-sandbox-port": "6080"}
            page = api.get("/vnc.html", headers=headers)
        assert page.status_code == 200 and "noVNC" in page.text
        desktop.stream.stop()
    finally:
        desktop.kill()
    of_javascript(server)


def of_javascript(server) -> None:
    """The same by the client in JavaScript."""
    script = Path(__file__).parent.parent / "js/desktop.mjs"
    settings = {
        "E2B_API_KEY": server.key,
        "E2B_API_URL": server.url,
        "E2B_SANDBOX_URL": server.url,
    }
    node = ["node", str(script)]
    ran = subprocess.run(node, env=os.environ | settings, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr


def windows(desktop, application) -> list[str]:
    try:
        return desktop.get_application_windows(application)
    except Exception:  # The tool fails while there is none.
        return []


def typed(desktop) -> bool:
    desktop.write("echo typed > /tmp/typed")
    desktop.press("enter")
    return desktop.files.exists("/tmp/typed")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_the_languages(server):
    server.start("--warm", "0", "--templates", "node,python,golang", "--wait-templates", seconds=800)
    for template, command, told in [
        ("node", "node -e 'console.log(1 + 1)'", "2\n"),
        ("python", "python -c 'print(1 + 1)'", "2\n"),
        ("golang", "go env GOPATH", "/home/user/go\n"),
    ]:
        with server.create(template=template) as sandbox:
            assert sandbox.commands.run(command).stdout == told
