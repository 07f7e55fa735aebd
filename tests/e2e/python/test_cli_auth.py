"""Signing the command line in: through the server's page, and with a key."""

import json
import os
import re
import stat
import subprocess
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from support import env

WARREN = os.environ.get("WARREN_BIN")

pytestmark = pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program")


@pytest.fixture
def run(tmp_path):
    """Runs the program in a home of its own, without the suite's key, without its server's
    directory, in which there is one too, and without a browser."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))}
    variables |= {"HOME": str(tmp_path), "PATH": "/nonexistent", "E2B_API_URL": env.API_URL}

    def run(*words, key=None, **options):
        options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
        extra = {"E2B_API_KEY": key} if key else {}
        return subprocess.run(
            [WARREN, *words], env=variables | extra, capture_output=True, text=True, timeout=60, **options
        )

    run.variables = variables
    run.config = tmp_path / ".e2b/config.json"
    return run


@pytest.fixture
def browser():
    """A browser that somebody is signed in with."""
    with env.client(env.API_URL, follow_redirects=False) as client:
        yield client


def sign_in_at(browser, url):
    """Follows the program's page to the question, as a person without a session."""
    parts = urlsplit(url)
    answer = browser.get(f"{parts.path}?{parts.query}")
    assert answer.status_code == 303
    answer = browser.get(answer.headers["location"])
    assert answer.headers["location"].startswith("/dashboard/sign-in?then=")
    then = parse_qs(urlsplit(answer.headers["location"]).query)["then"][0]
    answer = browser.post("/dashboard/sign-in", data={"key": env.API_KEY, "then": then})
    assert answer.headers["location"] == then
    return browser.get(then)


def decide(browser, page, allow):
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
    data = {"csrf": fields["csrf"], "next": fields["next"], "allow": allow}
    headers = {"Origin": env.API_URL}
    return browser.post("/dashboard/cli", data=data, headers=headers)


def start_login(run):
    program = subprocess.Popen(
        [WARREN, "auth", "login"],
        env=run.variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in program.stdout:
        if line.startswith("http"):
            return program, line.strip()
    raise AssertionError(program.communicate())


def log_in(run, browser):
    program, url = start_login(run)
    page = sign_in_at(browser, url)
    assert "asks to act for you" in page.text
    next_url = parse_qs(urlsplit(url).query)["next"][0]
    origin = "http://" + urlsplit(next_url).netloc
    assert f"form-action 'self' {origin};" in page.headers["content-security-policy"]
    answer = decide(browser, page, "true")
    assert answer.status_code == 303 and answer.headers["location"].startswith(next_url)
    with httpx.Client(trust_env=False) as caller:
        back = caller.get(answer.headers["location"])
    assert "state=success" in back.headers["location"]
    done = browser.get(browser.get(back.headers["location"]).headers["location"])
    assert "The program is signed in" in done.text
    out, err = program.communicate(timeout=20)
    assert program.returncode == 0, err
    return out


def test_a_sign_in_in_the_browser_works_until_it_is_ended(run, browser):
    assert run("auth", "info").stdout == "Not logged in\n"
    out = log_in(run, browser)
    assert re.search(r"Logged in as \S+@\S+ with selected project \S+", out)
    assert stat.S_IMODE(run.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.config.parent.stat().st_mode) == 0o700
    config = json.loads(run.config.read_text())
    assert config["version"] == 2 and config["projectApiKey"].startswith("e2b_")

    info = json.loads(run("auth", "info", "--json").stdout)
    assert (info["loggedIn"], info["projectId"]) == (True, config["projectId"])
    assert "Already logged in" in run("auth", "login").stdout
    assert run("sandbox", "list", "--json").returncode == 0, "the project's key is used"
    assert run("template", "list").returncode == 0

    chosen = run("auth", "configure", "--project", config["projectId"])
    assert f"({config['projectId']}) selected." in chosen.stdout, chosen.stderr
    unknown = run("auth", "configure", "--project", "nobody's")
    assert unknown.returncode == 1 and "no project" in unknown.stderr
    nobody = run("auth", "configure")
    assert nobody.returncode == 1 and "--project" in nobody.stderr

    token = config["tokens"]["refresh_token"]
    endpoint = config["oauth"]["token_endpoint"]
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "x"}
    with httpx.Client(trust_env=False) as caller:
        assert caller.post(endpoint, data=form).json()["access_token"]
        odd = caller.post(endpoint, data={"grant_type": "password"})
        assert (odd.status_code, odd.json()["error"]) == (400, "unsupported_grant_type")
        assert run("auth", "logout").stdout == "Logged out.\n"
        ended = caller.post(endpoint, data=form)
        assert (ended.status_code, ended.json()["error"]) == (400, "invalid_grant")
    assert not run.config.exists()
    assert run("auth", "logout").stdout == "Not logged in, nothing to do\n"


def test_a_session_that_has_ended_is_told(run, browser):
    log_in(run, browser)
    config = json.loads(run.config.read_text())
    with httpx.Client(trust_env=False) as caller:
        revoked = {"token": config["tokens"]["refresh_token"]}
        assert caller.post(config["oauth"]["revoke_endpoint"], data=revoked).status_code == 200
    ended = run("auth", "configure", "--project", config["projectId"])
    assert ended.returncode == 1 and "session has expired" in ended.stderr
    assert not run.config.exists()


def test_a_refusal_in_the_browser_ends_the_wait(run, browser):
    program, url = start_login(run)
    answer = decide(browser, sign_in_at(browser, url), "false")
    with httpx.Client(trust_env=False) as caller:
        elsewhere = httpx.URL(answer.headers["location"]).copy_with(path="/guess")
        assert caller.get(elsewhere).status_code == 404
        back = caller.get(answer.headers["location"])
    assert "state=error" in back.headers["location"]
    page = browser.get(browser.get(back.headers["location"]).headers["location"])
    assert "refused" in page.text
    _, err = program.communicate(timeout=20)
    assert program.returncode == 1 and "refused in the browser" in err
    assert not run.config.exists()


@pytest.mark.parametrize(
    "place",
    ["https://evil.example/", "http://evil.example:80/", "http://localhost:80@evil.example:80/", ""],
)
def test_tokens_go_to_programs_on_this_computer_only(browser, place):
    signed_in = browser.post("/dashboard/sign-in", data={"key": env.API_KEY, "then": "/dashboard"})
    assert signed_in.status_code == 303
    query = urlencode({"next": place})
    assert browser.get(f"/dashboard/cli?{query}").status_code == 400


def test_a_key_alone_is_enough(run):
    refused = run("sandbox", "list")
    assert refused.returncode == 1 and "E2B_API_KEY" in refused.stderr
    assert run("sandbox", "list", key=env.API_KEY).returncode == 0
    wrong = run("auth", "login", "--with-key", input="e2b_" + "0" * 40)
    assert wrong.returncode == 1 and "401" in wrong.stderr
    assert not run.config.exists()
    assert run("auth", "login", "--with-key", input=env.API_KEY + "\n").returncode == 0
    assert run("sandbox", "list").returncode == 0
    assert "Only an API key is kept" in run("auth", "configure").stdout
    assert run("auth", "logout").stdout == "Logged out.\n"


def test_a_spoilt_file_is_told_with_its_fix(run):
    run.config.parent.mkdir()
    run.config.write_text('{"version": 7}')
    old = run("auth", "info")
    assert old.stdout == "Not logged in\n" and "deprecated" in old.stderr
    run.config.write_text("no json")
    spoilt = run("sandbox", "list")
    assert spoilt.returncode == 1 and "config.json" in spoilt.stderr and "hint:" in spoilt.stderr
    assert run("auth", "logout").stdout == "Logged out.\n"
