"""Fixtures of the suite. Every sandbox made here is killed here."""

import uuid
from collections.abc import Iterator

import httpx
import pytest
from e2b import Sandbox

from support import env
from support.connect import Envd


def pytest_collection_modifyitems(config, items):
    """Leaves out slow tests unless they are asked for, and those that own the machine in
    parallel runs."""
    left_out = set()
    if "slow" not in config.option.markexpr:
        left_out.add("slow")
    if hasattr(config, "workerinput"):
        left_out.add("alone")
    gone = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session", autouse=True)
def _configured() -> None:
    assert env.API_KEY, "E2B_API_KEY is not set: start the suite through its runner"


@pytest.fixture(scope="session")
def api() -> Iterator[httpx.Client]:
    """The REST API with the suite's key."""
    with env.client(env.API_URL, headers={"X-API-Key": env.API_KEY}) as client:
        yield client


@pytest.fixture(scope="session")
def anonymous() -> Iterator[httpx.Client]:
    """The REST API without a credential."""
    with env.client(env.API_URL) as client:
        yield client


@pytest.fixture(scope="session")
def edge() -> Iterator[httpx.Client]:
    """The proxy; tests say in the Host header or the routing headers which sandbox."""
    with env.client(env.SANDBOX_URL) as client:
        yield client


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that the tests of a module share."""
    sandbox = Sandbox.create(timeout=600)
    yield sandbox
    sandbox.kill()


@pytest.fixture
def own_sandbox() -> Iterator[Sandbox]:
    """A sandbox for one test, which may ruin it."""
    sandbox = Sandbox.create(timeout=300)
    yield sandbox
    sandbox.kill()


@pytest.fixture
def create(api) -> Iterator:
    """Makes sandboxes through the raw API and kills them after the test."""
    made: list[str] = []

    def make(body: dict | None = None, version: int = 2, **headers: str) -> dict:
        route = "/v2/sandboxes" if version == 2 else "/sandboxes"
        response = api.post(route, json={"templateID": "base", **(body or {})}, headers=headers)
        assert response.status_code == 201, response.text
        answer = response.json()
        made.append(answer["sandboxID"])
        return answer

    yield make
    for sandbox_id in made:
        api.delete(f"/sandboxes/{sandbox_id}")


@pytest.fixture
def create_raw(api):
    """Sends a create that is expected to be refused and returns the answer."""
    return lambda body: api.post("/v2/sandboxes", json={"templateID": "base", **body})


@pytest.fixture(scope="module")
def envd(sandbox, api) -> Iterator[Envd]:
    """The raw agent of the module's sandbox, with its token."""
    detail = api.get(f"/sandboxes/{sandbox.sandbox_id}").json()
    agent = Envd(sandbox.sandbox_id, detail["envdAccessToken"])
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def open_envd(api) -> Iterator[Envd]:
    """The raw agent of a sandbox without a token, which only the v1 create makes."""
    response = api.post("/sandboxes", json={"templateID": "base", "timeout": 600})
    assert response.status_code == 201, response.text
    sandbox_id = response.json()["sandboxID"]
    agent = Envd(sandbox_id, None)
    yield agent
    agent.close()
    api.delete(f"/sandboxes/{sandbox_id}")


@pytest.fixture
def folder(sandbox) -> str:
    """A new directory of the default user in the module's sandbox."""
    path = f"/home/user/{uuid.uuid4().hex[:12]}"
    assert sandbox.files.make_dir(path)
    return path


@pytest.fixture
def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex
