"""REST conventions and authentication, as clients meet them."""

import json

import pytest
from e2b import AuthenticationException, Sandbox

from support import env
from support.api import refused
from support.env import optional

UNKNOWN_KEY = "e2b_" + "ab" * 20

REFUSALS = [
    ("GET", "/v2/sandboxes?limit=0", None, 400),
    ("GET", "/sandboxes/i0000000000000000dead", None, 404),
    ("GET", "/sandboxes/a-b-c", None, 400),
    ("POST", "/v2/sandboxes", {"templateID": "no-such-template"}, 404),
    ("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 0}, 400),
    ("GET", "/no/such/route", None, 404),
]


def test_a_missing_credential_is_401(anonymous):
    refused(anonymous.get("/v2/sandboxes"), 401, "authorization header is missing")


@pytest.mark.parametrize(
    "key", [UNKNOWN_KEY, "abc", "e2b_", "e2b_zz", "é"]
)
def test_a_key_that_is_not_ours_is_401(anonymous, key):
    refused(anonymous.get("/v2/sandboxes", headers={"X-API-Key": key.encode()}), 401)


def test_python_raises_its_authentication_exception():
    with pytest.raises(AuthenticationException):
        Sandbox.create(api_key=UNKNOWN_KEY)
    with pytest.raises(AuthenticationException):
        Sandbox.list(api_key=UNKNOWN_KEY).next_items()


@pytest.mark.parametrize("name", ["X-API-KEY", "x-api-key", "X-API-Key"])
def test_the_key_header_has_any_case(anonymous, name):
    # httpx sends names as they are written.
    assert anonymous.get("/v2/sandboxes", headers={name: env.API_KEY}).status_code == 200


def test_the_key_has_the_form_that_older_clients_check():
    prefix, _, digits = env.API_KEY.partition("_")
    assert prefix == "e2b" and len(digits) == 40
    assert set(digits) <= set("0123456789abcdef")


def test_authentication_comes_before_every_lookup(anonymous, sandbox):
    for sandbox_id in (sandbox.sandbox_id, "i0000000000000000dead", "a-b-c"):
        refused(anonymous.get(f"/sandboxes/{sandbox_id}"), 401)


@pytest.mark.parametrize("method,path,body,status", REFUSALS)
def test_every_refusal_has_the_error_body(api, method, path, body, status):
    refused(api.request(method, path, json=body), status)


def test_a_chunked_body_without_length_is_read(api, create):
    body = json.dumps({"templateID": "base", "timeout": 60}).encode()
    parts = iter([body[:10], body[10:]])
    answer = api.post("/v2/sandboxes", content=parts, headers={"content-type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert api.delete(f"/sandboxes/{answer.json()['sandboxID']}").status_code == 204


def test_an_unknown_field_is_ignored(create):
    assert create({"notAField": {"x": [1]}})["sandboxID"]


@pytest.mark.parametrize(
    "body",
    [
        {"templateID": "base", "timeout": "x"},
        {"timeout": 60},
        {"templateID": 7},
        {"templateID": "base", "metadata": {"a": 1}},
    ],
)
def test_a_body_of_the_wrong_shape_is_a_validation_error(api, body):
    answer = refused(api.post("/v2/sandboxes", json=body), 400)
    assert answer["message"].startswith("validation error"), answer


def test_a_body_that_is_not_json_is_400(api):
    headers = {"content-type": "application/json"}
    answer = refused(api.post("/v2/sandboxes", content=b"{nope", headers=headers), 400)
    assert answer["message"].startswith("Error when parsing request"), answer


def test_a_preflight_needs_no_key_and_allows_any_origin(anonymous):
    answer = anonymous.options(
        "/v2/sandboxes",
        headers={
            "origin": "https://example.com",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key,content-type,idempotency-key",
        },
    )
    assert answer.is_success, answer.status_code
    assert answer.headers["access-control-allow-origin"] in ("*", "https://example.com")
    assert "POST" in answer.headers["access-control-allow-methods"].upper()
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or {"x-api-key", "content-type", "idempotency-key"} <= {
        name.strip() for name in allowed.split(",")
    }


def test_a_cross_origin_401_can_be_read_by_the_page(anonymous):
    answer = anonymous.get("/v2/sandboxes", headers={"origin": "https://example.com"})
    refused(answer, 401)
    assert answer.headers["access-control-allow-origin"] in ("*", "https://example.com")


def test_an_id_with_a_client_id_is_the_same_sandbox(api, sandbox):
    plain = api.get(f"/sandboxes/{sandbox.sandbox_id}").json()
    suffixed = api.get(f"/sandboxes/{sandbox.sandbox_id}-6532622b")
    assert suffixed.status_code == 200
    assert suffixed.json()["sandboxID"] == plain["sandboxID"]


@pytest.mark.parametrize("bad", ["a-b-c", "I_D", "%2e%2e%2fx", "UPPER"])
def test_a_malformed_id_is_400(api, bad):
    refused(api.get(f"/sandboxes/{bad}"), 400, "Invalid sandbox ID")


@pytest.mark.skipif(
    not optional("WARREN_OTHER_API_KEY"), reason="the runner gave no key of another team"
)
def test_another_team_sees_and_changes_nothing(api, sandbox):
    sandbox_id = sandbox.sandbox_id
    before = api.get(f"/sandboxes/{sandbox_id}").json()
    headers = {"X-API-Key": optional("WARREN_OTHER_API_KEY")}
    with env.client(env.API_URL, headers=headers) as other:
        for method, path, body in [
            ("GET", "", None),
            ("DELETE", "", None),
            ("POST", "/pause", {}),
            ("POST", "/connect", {"timeout": 10}),
            ("POST", "/timeout", {"timeout": 1}),
            ("POST", "/snapshots", {}),
            ("POST", "/fork", {}),
            ("PUT", "/network", {}),
        ]:
            refused(other.request(method, f"/sandboxes/{sandbox_id}{path}", json=body), 404)
        assert sandbox_id not in [s["sandboxID"] for s in other.get("/v2/sandboxes").json()]
    assert api.get(f"/sandboxes/{sandbox_id}").json() == before


def test_health_needs_no_key(anonymous):
    assert anonymous.get("/health").is_success
