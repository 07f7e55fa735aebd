"""Create and connect: fields, defaults, dialects, errors."""

import concurrent.futures
import uuid

import pytest
from e2b import Sandbox, SandboxException, SandboxNotFoundException

from support.api import left, refused
from support.connect import Envd

MISSING = "i0000000000000000dead"


def test_create_without_options_makes_a_base_sandbox_of_300_s():
    with Sandbox.create() as sandbox:
        info = sandbox.get_info()
        assert info.name == "base"
        assert 280 < (info.end_at - info.started_at).total_seconds() < 320


def test_v1_create_is_open_and_short_lived(create, api):
    answer = create(version=1)
    assert not answer.get("envdAccessToken")
    detail = api.get(f"/sandboxes/{answer['sandboxID']}").json()
    assert 5 < left(detail["endAt"]) <= 16
    agent = Envd(answer["sandboxID"], None)
    assert agent.run("echo open").stdout == b"open\n"
    agent.close()


def test_v1_create_with_secure_returns_a_token(create):
    answer = create({"secure": True, "timeout": 60}, version=1)
    assert answer["envdAccessToken"]
    agent = Envd(answer["sandboxID"], answer["envdAccessToken"])
    assert agent.run("echo secure").stdout == b"secure\n"
    assert agent.anonymous.get("/envs").status_code == 401
    agent.close()


def test_v2_create_is_always_secured(create):
    for extra in ({}, {"secure": False}):
        answer = create(extra)
        assert answer["envdAccessToken"]
        agent = Envd(answer["sandboxID"], None)
        assert agent.unary("process.Process/List", {}).status_code == 401
        agent.close()


def test_the_answer_has_the_fields_that_parsers_require(create):
    answer = create()
    for name in ("templateID", "sandboxID", "clientID", "envdVersion", "domain"):
        assert isinstance(answer[name], str) and answer[name], (name, answer)
    assert answer["sandboxID"][0] == "i" and len(answer["sandboxID"]) == 21
    assert answer["sandboxID"].isalnum() and answer["sandboxID"].islower()
    major, minor, patch = (int(part) for part in answer["envdVersion"].split("."))
    assert (major, minor, patch) >= (0, 6, 13)
    assert answer.get("trafficAccessToken") is None


def test_the_first_command_needs_no_retry():
    for _ in range(3):
        with Sandbox.create(timeout=60, retries=0) as sandbox:
            assert sandbox.commands.run("echo now").stdout == "now\n"


def test_a_template_has_one_id_under_all_its_names(create):
    template_id = create()["templateID"]
    assert template_id != "base"
    for name in ("base:default", " Base ", template_id, f"{template_id}:default"):
        assert create({"templateID": name})["templateID"] == template_id


def test_an_unknown_template_is_404(api):
    message = "template 'nope' not found"
    refused(api.post("/v2/sandboxes", json={"templateID": "nope"}), 404, message)
    with pytest.raises(SandboxException, match="404: .*not found"):
        Sandbox.create("nope")


def test_an_unknown_tag_is_404(api):
    message = "tag 'v9' does not exist for template"
    refused(api.post("/v2/sandboxes", json={"templateID": "base:v9"}), 404, message)


@pytest.mark.parametrize("name", ["", "a b", "x/y/z", "base:bad tag", "../base"])
def test_a_malformed_template_reference_is_refused(api, name):
    answer = api.post("/v2/sandboxes", json={"templateID": name})
    assert answer.status_code in (400, 404), answer.text
    refused(answer, answer.status_code)


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_below_one_is_400(api, timeout):
    answer = api.post("/v2/sandboxes", json={"templateID": "base", "timeout": timeout})
    refused(answer, 400, "Timeout must be greater than 0")


def test_a_timeout_above_the_limit_is_400(api):
    answer = api.post("/v2/sandboxes", json={"templateID": "base", "timeout": 10**7})
    assert "Timeout cannot be greater than" in refused(answer, 400)["message"]
    assert "hours" in answer.json()["message"]


def test_metadata_comes_back_exactly(api):
    metadata = {"a b": "c&d=e", "ü": "✓", "empty": ""}
    with Sandbox.create(timeout=60, metadata=metadata) as sandbox:
        assert sandbox.get_info().metadata == metadata
        assert Sandbox.get_info(sandbox.sandbox_id).metadata == metadata
        entries = api.get("/v2/sandboxes").json()
        mine = [e for e in entries if e["sandboxID"] == sandbox.sandbox_id]
        assert mine[0]["metadata"] == metadata


def test_variables_reach_commands_and_no_api_answer(api):
    secret = uuid.uuid4().hex
    with Sandbox.create(timeout=60, envs={"A": "1", "HIDDEN": secret}) as sandbox:
        assert sandbox.commands.run("echo $A-$HIDDEN").stdout == f"1-{secret}\n"
        assert sandbox.commands.run("echo $A", envs={"A": "2"}).stdout == "2\n"
        for path in (f"/sandboxes/{sandbox.sandbox_id}", "/v2/sandboxes", "/sandboxes"):
            assert secret not in api.get(path).text


def test_the_same_idempotency_key_makes_one_sandbox(api, create):
    key = uuid.uuid4().hex
    body = {"timeout": 60, "metadata": {"k": key}}
    first = create(body, **{"Idempotency-Key": key})
    again = create(body, **{"Idempotency-Key": key})
    assert again == first
    assert sum(e["metadata"].get("k") == key for e in api.get("/v2/sandboxes").json()) == 1


def test_an_idempotency_key_fits_one_request_only(api, create):
    key = uuid.uuid4().hex
    create({"timeout": 60}, **{"Idempotency-Key": key})
    answer = api.post(
        "/v2/sandboxes",
        json={"templateID": "base", "timeout": 61},
        headers={"Idempotency-Key": key},
    )
    assert refused(answer, 409)["error_code"] == "idempotency_request_mismatch"


def test_simultaneous_repeats_never_make_two(api):
    key = uuid.uuid4().hex
    body = {"templateID": "base", "timeout": 60, "metadata": {"k": key}}

    def post(_):
        return api.post("/v2/sandboxes", json=body, headers={"Idempotency-Key": key})

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    made = {a.json()["sandboxID"] for a in answers if a.status_code == 201}
    try:
        assert len(made) == 1, [a.text for a in answers]
        for answer in answers:
            if answer.status_code != 201:
                assert refused(answer, 409)["error_code"] == "idempotency_in_progress"
    finally:
        for sandbox_id in made:
            api.delete(f"/sandboxes/{sandbox_id}")


@pytest.mark.parametrize("key", ["UPPER", "under_score", "x" * 256])
def test_a_malformed_idempotency_key_is_400(api, key):
    answer = api.post(
        "/v2/sandboxes", json={"templateID": "base"}, headers={"Idempotency-Key": key}
    )
    refused(answer, 400)


def test_the_sdk_passes_its_idempotency_key():
    key = uuid.uuid4().hex
    with Sandbox.create(timeout=60, idempotency_key=key) as sandbox:
        same = Sandbox.create(timeout=60, idempotency_key=key)
        assert same.sandbox_id == sandbox.sandbox_id


def test_the_lifecycle_is_reported(api, create):
    killing = create()["sandboxID"]
    lifecycle = api.get(f"/sandboxes/{killing}").json()["lifecycle"]
    assert lifecycle["onTimeout"] == "kill" and lifecycle["autoResume"] is False


def test_a_create_that_is_refused_leaves_nothing(api, unique):
    for body in (
        {"templateID": "nope"},
        {"templateID": "base", "timeout": 0},
        {"templateID": "base", "network": {"denyOut": ["example.com"]}},
        {"templateID": "base", "network": {"maskRequestHost": "-https://abcd"}},
    ):
        answer = api.post("/v2/sandboxes", json={**body, "metadata": {"try": unique}})
        assert answer.is_client_error, answer.text
    found = api.get("/v2/sandboxes", params={"metadata": f"try={unique}"})
    assert found.json() == []


def test_twenty_at_once_are_all_usable():
    def make(number: int) -> str:
        with Sandbox.create(timeout=120, metadata={"n": str(number)}) as sandbox:
            assert sandbox.commands.run(f"echo {number}").stdout == f"{number}\n"
            return sandbox.sandbox_id

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(make, range(20)))) == 20


def test_connect_never_shortens(api, create):
    sandbox_id = create({"timeout": 300})["sandboxID"]
    end = api.get(f"/sandboxes/{sandbox_id}").json()["endAt"]
    short = api.post(f"/v2/sandboxes/{sandbox_id}/connect", json={"timeout": 10})
    assert short.status_code == 200, short.text
    assert api.get(f"/sandboxes/{sandbox_id}").json()["endAt"] == end
    assert api.post(f"/v2/sandboxes/{sandbox_id}/connect", json={"timeout": 600}).is_success
    assert 580 < left(api.get(f"/sandboxes/{sandbox_id}").json()["endAt"]) <= 601


def test_connect_returns_the_tokens_of_the_create(api, create):
    made = create({"timeout": 60})
    answer = api.post(f"/v2/sandboxes/{made['sandboxID']}/connect").json()
    for name in ("sandboxID", "templateID", "envdAccessToken", "envdVersion", "domain"):
        assert answer[name] == made[name]


def test_connect_without_a_body_gives_300_s(api, create):
    sandbox_id = create({"timeout": 60})["sandboxID"]
    assert api.post(f"/v2/sandboxes/{sandbox_id}/connect").status_code == 200
    assert 280 < left(api.get(f"/sandboxes/{sandbox_id}").json()["endAt"]) <= 301


def test_connect_with_timeout_zero(api, create):
    sandbox_id = create({"timeout": 60})["sandboxID"]
    answer = api.post(f"/v2/sandboxes/{sandbox_id}/connect", json={"timeout": 0})
    refused(answer, 400, "Timeout must be greater than 0")
    # The older route allows it and changes nothing on a running sandbox.
    answer = api.post(f"/sandboxes/{sandbox_id}/connect", json={"timeout": 0})
    assert answer.status_code == 200, answer.text


def test_v1_connect_extends(api, create):
    made = create({"timeout": 60})
    answer = api.post(f"/sandboxes/{made['sandboxID']}/connect", json={"timeout": 500})
    assert answer.status_code == 200, answer.text
    assert answer.json()["envdAccessToken"] == made["envdAccessToken"]
    assert 480 < left(api.get(f"/sandboxes/{made['sandboxID']}").json()["endAt"]) <= 501


def test_connect_to_what_is_gone_is_404(api, create):
    sandbox_id = create()["sandboxID"]
    assert api.delete(f"/sandboxes/{sandbox_id}").status_code == 204
    for gone in (sandbox_id, MISSING):
        refused(api.post(f"/v2/sandboxes/{gone}/connect", json={}), 404)
        with pytest.raises(SandboxNotFoundException, match=f"Paused sandbox {gone} not found"):
            Sandbox.connect(gone)
