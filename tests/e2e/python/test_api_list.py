"""Get and list: fields, filters, order, pages."""

import urllib.parse
import uuid
from datetime import timedelta

import pytest
from e2b import Sandbox, SandboxNotFoundException, SandboxQuery, SandboxState

from support.api import left, moment, refused

MISSING = "i0000000000000000dead"


@pytest.fixture(scope="module")
def three():
    """Three sandboxes, oldest first, that one metadata pair tells from all others."""
    mark = {"suite": uuid.uuid4().hex, "a b": "c&d=e"}
    made = [Sandbox.create(timeout=300, metadata={**mark, "n": str(n)}) for n in range(3)]
    yield mark, [s.sandbox_id for s in made]
    for sandbox in made:
        sandbox.kill()


def ids(response) -> list[str]:
    assert response.status_code == 200, response.text
    return [entry["sandboxID"] for entry in response.json()]


def encoded(metadata: dict[str, str]) -> str:
    """The filter as the SDKs encode it, before the query's own encoding."""
    quote = urllib.parse.quote
    return urllib.parse.urlencode({quote(k): quote(v) for k, v in metadata.items()})


def test_get_has_every_required_field(api, sandbox):
    detail = api.get(f"/sandboxes/{sandbox.sandbox_id}").json()
    for name in ("templateID", "sandboxID", "clientID", "envdVersion"):
        assert isinstance(detail[name], str) and detail[name], name
    for name in ("cpuCount", "memoryMB", "diskSizeMB"):
        assert isinstance(detail[name], int) and detail[name] > 0, name
    assert detail["state"] == "running"
    assert left(detail["endAt"]) > 0
    assert moment(detail["startedAt"]) < moment(detail["endAt"])
    assert detail["envdAccessToken"] and detail["domain"]
    assert detail["metadata"] == {} and not detail.get("volumeMounts")


def test_get_of_an_unknown_sandbox(api):
    message = f"Sandbox \"{MISSING}\" doesn't exist or you don't have access to it"
    assert refused(api.get(f"/sandboxes/{MISSING}"), 404)["message"] == message
    with pytest.raises(SandboxNotFoundException):
        Sandbox.get_info(MISSING)


def test_a_fresh_sandbox_is_listed_and_a_killed_one_is_not(api):
    sandbox = Sandbox.create(timeout=60)
    assert sandbox.sandbox_id in ids(api.get("/v2/sandboxes"))
    assert sandbox.sandbox_id in ids(api.get("/sandboxes"))
    assert sandbox.kill()
    assert sandbox.sandbox_id not in ids(api.get("/v2/sandboxes"))
    assert sandbox.sandbox_id not in ids(api.get("/sandboxes"))
    refused(api.get(f"/sandboxes/{sandbox.sandbox_id}"), 404)


def test_newest_first_and_every_entry_is_complete(api, three):
    mark, made = three
    answer = api.get("/v2/sandboxes", params={"metadata": encoded(mark)})
    assert ids(answer) == made[::-1]
    required = ("templateID", "sandboxID", "clientID", "startedAt", "endAt", "cpuCount")
    for entry in answer.json():
        for name in (*required, "memoryMB", "diskSizeMB", "state", "envdVersion"):
            assert entry[name], name


def test_the_state_filter(api, three):
    mark, made = three
    query = {"metadata": encoded(mark)}
    assert ids(api.get("/v2/sandboxes", params={**query, "state": "running"})) == made[::-1]
    assert ids(api.get("/v2/sandboxes", params={**query, "state": "running,paused"})) == made[::-1]
    assert ids(api.get("/v2/sandboxes", params={**query, "state": "paused"})) == []
    refused(api.get("/v2/sandboxes", params={"state": "dead"}), 400)


def test_pages_end_cleanly(api, three):
    mark, made = three
    query = {"metadata": encoded(mark), "limit": 2}
    first = api.get("/v2/sandboxes", params=query)
    assert ids(first) == made[:0:-1]
    token = first.headers["x-next-token"]
    last = api.get("/v2/sandboxes", params={**query, "nextToken": token})
    assert ids(last) == made[:1]
    assert not last.headers.get("x-next-token")
    exact = api.get("/v2/sandboxes", params={**query, "limit": 3})
    assert ids(exact) == made[::-1] and not exact.headers.get("x-next-token")


def test_the_order_goes_over_all_pages(api, three):
    mark, made = three
    query = {"metadata": encoded(mark), "limit": 2, "order": "asc"}
    first = api.get("/v2/sandboxes", params=query)
    token = first.headers["x-next-token"]
    rest = api.get("/v2/sandboxes", params={**query, "nextToken": token})
    assert ids(first) + ids(rest) == made
    crossed = api.get("/v2/sandboxes", params={**query, "order": "desc", "nextToken": token})
    refused(crossed, 400, "Invalid next token")


def test_bad_cursors_and_limits_are_400(api):
    refused(api.get("/v2/sandboxes?nextToken=garbage"), 400, "Invalid next token")
    for limit in ("0", "101", "-1", "x"):
        refused(api.get(f"/v2/sandboxes?limit={limit}"), 400)


def test_the_sdk_pages_through(three):
    mark, made = three
    pages = Sandbox.list(query=SandboxQuery(metadata=mark), limit=2)
    found = []
    while pages.has_next:
        found += [info.sandbox_id for info in pages.next_items()]
    assert found == made[::-1]


def test_the_metadata_filter_matches_all_pairs(api, three):
    mark, made = three

    def found(metadata):
        query = SandboxQuery(metadata=metadata, state=[SandboxState.RUNNING])
        return [info.sandbox_id for info in Sandbox.list(query=query).next_items()]

    assert found(mark) == made[::-1]
    assert found({**mark, "n": "1"}) == [made[1]]
    assert found({**mark, "n": "7"}) == []
    assert found({**mark, "a b": "c"}) == []


def test_a_metadata_filter_encoded_once_works_too(api, three):
    mark, made = three
    answer = api.get(f"/v2/sandboxes?metadata=suite%3D{mark['suite']}")
    assert ids(answer) == made[::-1]


@pytest.mark.parametrize("bad", ["novalue", "a=b=c", "a=1&novalue"])
def test_a_metadata_filter_without_pairs_is_400(api, bad):
    answer = api.get("/v2/sandboxes", params={"metadata": bad})
    assert refused(answer, 400)["message"].startswith("Error parsing metadata")


def test_started_after_is_inclusive(api, three):
    mark, made = three
    newest = api.get(f"/sandboxes/{made[-1]}").json()["startedAt"]
    query = {"metadata": encoded(mark)}
    assert made[-1] in ids(api.get("/v2/sandboxes", params={**query, "startedAfter": newest}))
    later = (moment(newest) + timedelta(seconds=1)).isoformat()
    assert ids(api.get("/v2/sandboxes", params={**query, "startedAfter": later})) == []


def test_the_template_filter(api, three):
    mark, made = three
    template = api.get(f"/sandboxes/{made[0]}").json()["templateID"]
    query = {"metadata": encoded(mark)}
    for name in ("base", template):
        assert ids(api.get("/v2/sandboxes", params={**query, "template": name})) == made[::-1]
    assert ids(api.get("/v2/sandboxes", params={**query, "template": "nope"})) == []
    refused(api.get("/v2/sandboxes", params={"template": "base:default"}), 400)


def test_the_total_counts_beyond_the_page(api, three):
    mark, _ = three
    query = {"metadata": encoded(mark), "state": "running", "limit": 1}
    answer = api.get("/v2/sandboxes", params=query)
    assert len(ids(answer)) == 1
    assert int(answer.headers["x-total-running"]) >= 3
