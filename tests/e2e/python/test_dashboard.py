"""The server's web pages: who may see them, what they show and do."""

import os
import re
import time
import uuid

import httpx
import pytest

from support import env


@pytest.fixture
def visitor():
    with env.client(env.API_URL, follow_redirects=False) as client:
        yield client


@pytest.fixture
def browser(visitor):
    answer = visitor.post("/dashboard/sign-in", data={"key": env.API_KEY})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert env.API_KEY not in cookie
    return visitor


def form(browser, **fields):
    """The fields of a form as the pages of the session have them."""
    csrf = re.search(r'name="csrf" content="([0-9a-f]{64})"', browser.get("/dashboard/usage").text)
    return {"csrf": csrf.group(1), **fields}


def test_every_page_asks_for_a_key(visitor):
    assert visitor.get("/").headers["location"] == "/dashboard"
    for path in ["", "/templates", "/usage", "/sandboxes/ixxxxxxxxxxxxxxxxxxxx", "/sandboxes/i/logs"]:
        answer = visitor.get(f"/dashboard{path}")
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/dashboard/sign-in"), path


@pytest.mark.parametrize("key", ["", "nonsense", "e2b_" + "0" * 40, "x" * 10_000])
def test_a_wrong_key_opens_nothing(visitor, key):
    answer = visitor.post("/dashboard/sign-in", data={"key": key})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert 'role="alert"' in answer.text


def test_a_sandbox_is_shown_and_can_be_ended(browser, own_sandbox):
    sandbox_id = own_sandbox.sandbox_id
    assert sandbox_id in browser.get("/dashboard?state=running").text
    page = browser.get(f"/dashboard/sandboxes/{sandbox_id}")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    own_sandbox.commands.run("echo shown-in-the-log")
    end = time.monotonic() + 20
    while "shown-in-the-log" not in browser.get(f"/dashboard/sandboxes/{sandbox_id}/logs").text:
        assert time.monotonic() < end
        time.sleep(0.2)
    while not re.search(r'points="\d', browser.get(f"/dashboard/sandboxes/{sandbox_id}/metrics").text):
        assert time.monotonic() < end + 20
        time.sleep(0.5)
    browser.post(f"/dashboard/sandboxes/{sandbox_id}/extend", data=form(browser, seconds="3600"))
    left = re.search(r"Time left</dt><dd>([^<]*)<", browser.get(f"/dashboard/sandboxes/{sandbox_id}/facts").text)
    assert left.group(1).startswith(("1 h 0 min", "59 min"))
    kill = f"/dashboard/sandboxes/{sandbox_id}/kill"
    assert browser.post(kill, data=form(browser)).status_code == 303
    ended = browser.get(f"/dashboard/sandboxes/{sandbox_id}")
    assert ended.headers["location"] == f"/dashboard/sandboxes/{sandbox_id}/ended"
    left = browser.get(ended.headers["location"]).text
    assert "This sandbox has ended" in left and "shown-in-the-log" in left
    assert not own_sandbox.is_running()


def test_text_of_users_is_no_markup(browser):
    from e2b import Sandbox

    sandbox = Sandbox.create(metadata={"<b>name</b>": "<script>alert(1)</script>"})
    try:
        page = browser.get("/dashboard").text
        assert "<script>alert" not in page and "&#60;script&#62;alert" in page
    finally:
        sandbox.kill()


def test_another_site_can_not_act(browser, own_sandbox):
    path = f"/dashboard/sandboxes/{own_sandbox.sandbox_id}/kill"
    refused = browser.post(path, data=form(browser), headers={"Origin": "http://elsewhere.example"})
    assert refused.status_code == 403
    for forged in [{}, {"csrf": "0" * 64}]:
        assert browser.post(path, data=forged).status_code == 403
    assert own_sandbox.is_running()
    own = str(httpx.URL(env.API_URL).copy_with(path="")).rstrip("/")
    assert browser.post(path, data=form(browser), headers={"Origin": own}).status_code == 303


ONE = "sandboxes/ixxxxxxxxxxxxxxxxxxxx"


@pytest.mark.parametrize(
    "path",
    [
        "sandboxes",
        *[f"{ONE}/{action}" for action in ["kill", "extend", "pause", "resume", "snapshot", "fork"]],
        "templates/x/publish",
        "templates/x/delete",
        "snapshots/delete",
        "volumes",
        "volumes/x/delete",
        "webhooks",
        "webhooks/x/switch",
        "webhooks/x/delete",
        "volumes/x/upload",
        "volumes/x/folder",
        "volumes/x/remove",
        "secrets",
        "secrets/replace",
        "secrets/delete",
        "switch",
        "ssh-keys",
        "ssh-keys/x/delete",
        "tokens",
        "tokens/x/delete",
        "keys",
        "keys/x/rename",
        "keys/x/delete",
        "cli",
    ],
)
def test_every_change_wants_a_form_of_the_session(browser, visitor, path):
    for data in [{}, {"csrf": "0" * 64}]:
        answer = browser.post(f"/dashboard/{path}", data=data)
        assert answer.status_code == 403, answer.text
    with env.client(env.API_URL, follow_redirects=False) as stranger:
        answer = stranger.post(f"/dashboard/{path}", data=form(browser))
        assert answer.headers["location"] == "/dashboard/sign-in"


@pytest.mark.parametrize(
    "path",
    ["templates/nosuch", "templates/nosuch/builds/x", "volumes/x", "webhooks/x", "sandboxes/x"],
)
def test_what_is_not_there_is_told(browser, path):
    answer = browser.get(f"/dashboard/{path}")
    assert answer.status_code == 404 and "not found" in answer.text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("sandboxes", {"template": "no such", "seconds": "60"}),
        ("sandboxes", {"template": "base", "seconds": "0"}),
        ("volumes", {"name": "no/name"}),
        ("secrets", {"name": "", "value": ""}),
        ("webhooks", {"name": "", "url": "https://x.example"}),
    ],
)
def test_what_is_refused_is_told_in_words(browser, path, fields):
    answer = browser.post(f"/dashboard/{path}", data=form(browser, **fields))
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_a_large_file_goes_into_a_volume_and_out(browser):
    name = f"dash-{uuid.uuid4().hex[:8]}"
    assert browser.post("/dashboard/volumes", data=form(browser, name=name)).status_code == 303
    volume = re.search(rf'/dashboard/volumes/([0-9a-f-]+)">{name}', browser.get("/dashboard/volumes").text)
    path = f"/dashboard/volumes/{volume.group(1)}"
    content = os.urandom(8 << 20)
    csrf = {"X-CSRF-Token": form(browser)["csrf"]}
    assert browser.post(f"{path}/upload?path=/big", content=content).status_code == 403
    for wrong in ["/", "no/slash/first\0"]:
        refused = browser.post(f"{path}/upload", params={"path": wrong}, content=b"x", headers=csrf)
        assert refused.status_code == 400, refused.text
    for version in [b"earlier", content]:
        sent = browser.post(f"{path}/upload?path=/big", content=version, headers=csrf)
        assert sent.status_code == 201, sent.text
    answer = browser.get(f"{path}/download?path=/big")
    assert answer.content == content
    assert answer.headers["content-disposition"] == "attachment"
    assert browser.post(f"{path}/delete", data=form(browser)).status_code == 303


def test_signing_out_ends_the_session(browser):
    cookie = browser.cookies.get("warren_session")
    assert browser.post("/dashboard/sign-out").status_code == 303
    with env.client(env.API_URL, follow_redirects=False) as thief:
        answer = thief.get("/dashboard", headers={"Cookie": f"warren_session={cookie}"})
        assert answer.headers["location"] == "/dashboard/sign-in"


def test_scripts_and_styles_are_served(browser):
    page = browser.get("/dashboard/usage").text
    for name in re.findall(r'(?:src|href)="(/dashboard/assets/[^"]+)"', page):
        answer = browser.get(name)
        assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
    assert browser.get("/dashboard/assets/../Cargo.toml").status_code == 404
