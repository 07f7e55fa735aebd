"""The agent's server rules: health, tokens, signatures, CORS, users."""

import time
import uuid

import pytest
from e2b import AuthenticationException, ConnectionConfig, Sandbox, get_signature
from packaging.version import Version

from support.api import exactly, rpc_error
from support.connect import STREAM, bash, basic, envelope, signature

NO_TOKEN = "unauthorized access, please provide a valid access token or method signing if supported"
VECTOR_TOKEN = "0123456789abcdef" * 4


def test_health_is_open_to_anyone(envd):
    for client in (envd.http, envd.anonymous):
        answer = client.get("/health")
        assert answer.status_code == 204 and answer.content == b""
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/metrics", "/envs"])
def test_other_routes_want_the_token(envd, path):
    exactly(envd.anonymous.get(path), 401, NO_TOKEN)
    exactly(envd.anonymous.get(path, headers={"x-access-token": "wrong"}), 401, NO_TOKEN)
    assert envd.http.get(path).status_code == 200


def test_rpcs_want_the_token(envd):
    answer = envd.anonymous.post("/process.Process/List", json={})
    exactly(answer, 401, NO_TOKEN)
    assert envd.unary("process.Process/List", {}).status_code == 200


def test_a_streaming_rpc_without_token_is_plain_401(envd):
    for token in ({}, {"x-access-token": "wrong"}):
        answer = envd.anonymous.post(
            "/process.Process/Start",
            content=envelope(bash("true")),
            headers={"content-type": STREAM, **token},
        )
        exactly(answer, 401, NO_TOKEN)


def test_python_raises_its_authentication_exception(create):
    # Made without the SDK, so that the token can be withheld from it.
    made = create({"secure": True, "timeout": 60}, version=1)
    stranger = Sandbox(
        sandbox_id=made["sandboxID"],
        envd_version=Version(made["envdVersion"]),
        envd_access_token="wrong",
        sandbox_domain=None,
        connection_config=ConnectionConfig(
            extra_sandbox_headers={
                "E2b-Sandbox-Id": made["sandboxID"],
                "E2b-Sandbox-Port": "49983",
                "X-Access-Token": "wrong",
            }
        ),
    )
    with pytest.raises(AuthenticationException):
        stranger.commands.list()
    with pytest.raises(AuthenticationException):
        stranger.commands.run("true")


def test_an_open_sandbox_ignores_tokens_and_signatures(open_envd):
    answer = open_envd.http.post(
        "/process.Process/List", json={}, headers={"x-access-token": "anything"}
    )
    assert answer.status_code == 200
    open_envd.http.post(
        "/files?path=open.txt", content=b"x", headers={"content-type": "application/octet-stream"}
    )
    assert open_envd.http.get("/files?path=open.txt&signature=v1_nonsense").content == b"x"


def test_compose_takes_no_signature(envd):
    signed = signature("", "write", "", envd.token)
    body = {"source_paths": ["a"], "destination": "b"}
    answer = envd.anonymous.post("/files/compose", params={"signature": signed}, json=body)
    exactly(answer, 401, NO_TOKEN)


def test_a_preflight_passes_without_token(envd):
    answer = envd.anonymous.options(
        "/process.Process/Start",
        headers={
            "origin": "https://example.com",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-access-token,connect-protocol-version",
        },
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or {"x-access-token", "connect-protocol-version"} <= {
        name.strip() for name in allowed.split(",")
    }


def test_a_cross_origin_401_has_cors_headers(envd):
    answer = envd.anonymous.get("/envs", headers={"origin": "https://example.com"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "*"


def test_unknown_paths_and_methods(open_envd):
    http = open_envd.http
    missing = http.get("/nope")
    assert missing.status_code == 404 and missing.text.strip() == "404 page not found"
    for method in ("HEAD", "DELETE"):
        answer = http.request(method, "/files")
        assert answer.status_code == 405 and answer.content == b""
    answer = http.get("/process.Process/List")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_an_rpc_of_another_content_type_is_415(open_envd):
    answer = open_envd.http.post(
        "/process.Process/List", content=b"{}", headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 415
    assert "application/json" in answer.headers["accept-post"]


@pytest.mark.parametrize(
    "path,operation,user,expires,expected",
    [
        ("hello.txt", "read", "user", None, "v1_+bx8fOC1KXbgDiT9ueoSvyj6IsQhoCYq4jB18IO7CYc"),
        ("hello.txt", "write", "", 1893456000, "v1_Ddnxw6cZAHcpI94Rck0xbl0ylzrZQDl8pfprwuXUPMM"),
        (
            "/tmp/a b.txt",
            "read",
            "root",
            1893456000,
            "v1_XXouMCMJRWg23BU9E79FU38Q7W7VmkoiRrGWGcKDKws",
        ),
    ],
)
def test_the_suites_own_signatures_follow_the_vectors(path, operation, user, expires, expected):
    assert signature(path, operation, user, VECTOR_TOKEN, expires) == expected
    if expires is None:
        assert get_signature(path, operation, user, VECTOR_TOKEN)["signature"] == expected


class TestSignatures:
    """Signed file URLs of a secured sandbox."""

    @pytest.fixture(autouse=True)
    def _file(self, envd, sandbox):
        self.envd = envd
        sandbox.files.write("hello.txt", "hello")

    def get(self, path="hello.txt", **query):
        query = {"path": path, **query}
        return self.envd.anonymous.get("/files", params=query)

    def sign(self, path="hello.txt", operation="read", user="", expires=None):
        return signature(path, operation, user, self.envd.token, expires)

    def test_a_valid_one_is_served(self):
        assert self.get(signature=self.sign()).content == b"hello"
        named = self.get(username="user", signature=self.sign(user="user"))
        assert named.content == b"hello"
        soon = int(time.time()) + 60
        timed = self.get(signature=self.sign(expires=soon), signature_expiration=soon)
        assert timed.content == b"hello"

    def test_none_at_all_is_401(self):
        exactly(self.get(), 401, "missing signature query parameter")

    def test_one_made_for_something_else_is_invalid(self):
        soon = int(time.time()) + 60
        for answer in (
            self.get(signature=self.sign(path="other.txt")),
            self.get(signature=self.sign(operation="write")),
            self.get(signature=self.sign(user="root")),
            self.get(username="root", signature=self.sign()),
            self.get(signature=self.sign(expires=soon)),
            self.get(signature=self.sign(expires=soon), signature_expiration=soon + 1),
            self.get(signature="v1_"),
            self.get(signature=""),
        ):
            assert answer.status_code == 401, answer.text
            assert answer.json()["message"] in (
                "invalid signature",
                "missing signature query parameter",
            )

    def test_an_expired_one_is_refused(self):
        past = int(time.time()) - 10
        answer = self.get(signature=self.sign(expires=past), signature_expiration=past)
        exactly(answer, 401, "signature is already expired")

    def test_an_expired_one_with_an_edited_time_is_invalid(self):
        past = int(time.time()) - 10
        answer = self.get(signature=self.sign(expires=past), signature_expiration=past + 3600)
        exactly(answer, 401, "invalid signature")

    def test_a_time_that_is_no_number_is_400_text(self):
        answer = self.get(signature=self.sign(), signature_expiration="soon")
        assert answer.status_code == 400

    def test_a_valid_one_for_a_missing_file_is_404(self):
        answer = self.get(path="demo/test.txt", signature=self.sign(path="demo/test.txt"))
        exactly(answer, 404, "path '/home/user/demo/test.txt' does not exist")

    def test_a_wrong_header_beats_a_right_signature(self):
        answer = self.envd.anonymous.get(
            "/files",
            params={"path": "hello.txt", "signature": self.sign()},
            headers={"x-access-token": "wrong"},
        )
        exactly(answer, 401, "access token present in header but does not match")

    def test_an_upload_for_an_empty_path_takes_the_parts_name(self, sandbox):
        name = f"{uuid.uuid4().hex}.txt"
        answer = self.envd.anonymous.post(
            "/files",
            params={"signature": self.sign(path="", operation="write")},
            files={"file": (name, b"up")},
        )
        assert answer.status_code == 200, answer.text
        assert sandbox.files.read(f"/home/user/{name}") == "up"

    def test_the_sdks_urls_work(self, sandbox):
        # Such a URL names no sandbox when one host serves all; the caller routes it.
        down = sandbox.download_url("hello.txt", use_signature_expiration=60)
        answer = self.envd.anonymous.get("/files?" + down.partition("?")[2])
        assert answer.content == b"hello"
        up = sandbox.upload_url("signed.txt", user="user")
        answer = self.envd.anonymous.post(
            "/files?" + up.partition("?")[2], files={"file": ("x", b"signed")}
        )
        assert answer.status_code == 200, answer.text
        assert sandbox.files.read("signed.txt") == "signed"


def test_the_named_user_runs_the_command(envd):
    assert envd.run("whoami").stdout == b"user\n"
    assert envd.run("whoami", **basic("root")).stdout == b"root\n"
    assert envd.run("whoami", **basic("user")).stdout == b"user\n"


@pytest.mark.parametrize("name", ["nobody-such", "1000", "../root"])
def test_an_unknown_user_is_unauthenticated(envd, name):
    message = f"invalid username: '{name}'"
    rpc_error(envd.stat("/tmp", **basic(name)), 401, "unauthenticated", message)
    outcome = envd.run("true", **basic(name))
    assert outcome.kinds == [] and outcome.flags == [2]
    assert outcome.error["code"] == "unauthenticated" and message in outcome.error["message"]


def test_the_sdk_maps_an_unknown_user(sandbox):
    with pytest.raises(AuthenticationException):
        sandbox.commands.run("true", user="nobody-such")


def test_an_unknown_user_of_a_file_is_401(envd):
    answer = envd.http.get("/files", params={"path": "x", "username": "ghost"})
    exactly(answer, 401, "error looking up user 'ghost': user: unknown user ghost")


def test_files_are_read_without_a_permission_check(envd, sandbox):
    sandbox.files.write("/root/x", "secret", user="root")
    sandbox.commands.run("chmod 600 /root/x", user="root")
    answer = envd.http.get("/files", params={"path": "/root/x", "username": "user"})
    assert answer.status_code == 200 and answer.content == b"secret"


def test_new_directories_belong_to_the_user_and_old_ones_stay(sandbox):
    top = f"/{uuid.uuid4().hex[:8]}"
    sandbox.files.write(f"{top}/b/c.txt", "x", user="user")
    for path in (top, f"{top}/b", f"{top}/b/c.txt"):
        assert sandbox.files.get_info(path).owner == "user", path
    sandbox.files.write(f"/opt/{top}/f", "x", user="user")
    assert sandbox.files.get_info("/opt").owner == "root"
    assert sandbox.files.get_info(f"/opt{top}").owner == "user"
