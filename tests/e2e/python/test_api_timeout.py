"""Timeout, refreshes, kill and what is left afterwards."""

import pytest
from e2b import Sandbox, SandboxNotFoundException, TimeoutException

from support.api import left, moment, refused
from support.wait import until

MISSING = "i0000000000000000dead"


def end_of(api, sandbox_id: str) -> str:
    return api.get(f"/sandboxes/{sandbox_id}").json()["endAt"]


def test_timeout_shortens_and_extends(api, create):
    sandbox_id = create({"timeout": 300})["sandboxID"]
    for seconds in (30, 600):
        answer = api.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": seconds})
        assert answer.status_code == 204 and not answer.content
        assert seconds - 15 < left(end_of(api, sandbox_id)) <= seconds + 1


def test_the_sdk_sets_the_timeout(api, own_sandbox):
    own_sandbox.set_timeout(1000)
    assert 980 < left(end_of(api, own_sandbox.sandbox_id)) <= 1001


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_sandbox_ends_at_its_time(api, own_sandbox, seconds):
    assert own_sandbox.is_running()
    own_sandbox.set_timeout(seconds)
    path = f"/sandboxes/{own_sandbox.sandbox_id}"
    until(lambda: api.get(path).status_code == 404, "the sandbox ends", 10)
    assert not own_sandbox.is_running()
    listed = [entry["sandboxID"] for entry in api.get("/v2/sandboxes").json()]
    assert own_sandbox.sandbox_id not in listed


def test_a_timeout_beyond_the_maximum_is_capped(api, create):
    sandbox_id = create()["sandboxID"]
    answer = api.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": 10**8})
    assert answer.status_code == 204, answer.text
    detail = api.get(f"/sandboxes/{sandbox_id}").json()
    lifetime = moment(detail["endAt"]) - moment(detail["startedAt"])
    assert lifetime.total_seconds() % 3600 < 1 and lifetime.total_seconds() < 10**7


def test_a_negative_timeout_is_400(api, create):
    sandbox_id = create()["sandboxID"]
    refused(api.post(f"/sandboxes/{sandbox_id}/timeout", json={"timeout": -1}), 400)


def test_calls_on_an_unknown_sandbox_are_404(api):
    refused(api.post(f"/sandboxes/{MISSING}/timeout", json={"timeout": 10}), 404)
    refused(api.post(f"/sandboxes/{MISSING}/refreshes", json={"duration": 10}), 404)
    refused(api.delete(f"/sandboxes/{MISSING}"), 404)
    with pytest.raises(SandboxNotFoundException):
        Sandbox.set_timeout(MISSING, 10)


def test_refreshes_only_extend(api, create):
    sandbox_id = create({"timeout": 300})["sandboxID"]
    end = end_of(api, sandbox_id)
    route = f"/sandboxes/{sandbox_id}/refreshes"
    assert api.post(route, json={"duration": 10}).status_code == 204
    assert end_of(api, sandbox_id) == end
    assert api.post(route, json={"duration": 600}).status_code == 204
    assert 580 < left(end_of(api, sandbox_id)) <= 601
    refused(api.post(route, json={"duration": 3601}), 400)


def test_kill_twice(api, create):
    sandbox_id = create()["sandboxID"]
    first = api.delete(f"/sandboxes/{sandbox_id}")
    assert first.status_code == 204 and not first.content
    refused(api.delete(f"/sandboxes/{sandbox_id}"), 404)


def test_the_sdk_kills_twice():
    sandbox = Sandbox.create(timeout=60)
    assert sandbox.kill() is True
    assert sandbox.kill() is False
    assert Sandbox.kill(MISSING) is False
    assert sandbox.is_running() is False
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()


def test_a_kill_ends_a_command_stream_with_a_timeout_error(own_sandbox):
    handle = own_sandbox.commands.run("echo up; sleep 100", background=True)
    output = iter(handle)
    assert next(output)[0] == "up\n"
    assert own_sandbox.kill()
    with pytest.raises(TimeoutException, match="sandbox was killed or reached its"):
        next(output)
