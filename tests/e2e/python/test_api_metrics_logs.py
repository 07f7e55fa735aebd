"""Metrics and logs through the API."""

import json
import time

import pytest
from e2b import Sandbox

from support.api import moment, refused
from support.wait import until

KEYS = {
    "timestamp",
    "timestampUnix",
    "cpuCount",
    "cpuUsedPct",
    "memUsed",
    "memTotal",
    "memCache",
    "diskUsed",
    "diskTotal",
}


def test_metrics_describe_the_sandbox(api, sandbox):
    path = f"/sandboxes/{sandbox.sandbox_id}/metrics"
    points = until(lambda: api.get(path).json(), "a first point of metrics", 35, 1)
    detail = api.get(f"/sandboxes/{sandbox.sandbox_id}").json()
    for point in points:
        assert KEYS <= set(point), point
        assert point["cpuCount"] == detail["cpuCount"]
        assert point["memTotal"] == detail["memoryMB"] * 1024 * 1024
        assert 0 < point["memUsed"] <= point["memTotal"]
        assert 0 < point["diskUsed"] <= point["diskTotal"]
        assert 0 <= point["cpuUsedPct"] <= 100
        assert abs(moment(point["timestamp"]).timestamp() - point["timestampUnix"]) < 1.5
    stamps = [point["timestampUnix"] for point in points]
    assert stamps == sorted(stamps)
    first = sandbox.get_metrics()[0]
    assert first.cpu_count == detail["cpuCount"] and first.disk_total > 0


def test_a_range_before_the_start_is_empty(api, sandbox):
    path = f"/sandboxes/{sandbox.sandbox_id}/metrics"
    answer = api.get(path, params={"start": 1_600_000_000, "end": 1_600_000_100})
    assert answer.status_code == 200 and answer.json() == []


def test_a_range_that_ends_before_it_starts_is_400(api, sandbox):
    now = int(time.time())
    answer = api.get(
        f"/sandboxes/{sandbox.sandbox_id}/metrics", params={"start": now, "end": now - 10}
    )
    refused(answer, 400, "Invalid time range for metrics")


def test_metrics_of_many(api, sandbox):
    many = ",".join(f"i{n:020d}" for n in range(101))
    answer = api.get("/sandboxes/metrics", params={"sandbox_ids": many})
    refused(answer, 400, "Too many sandboxes requested, maximum is 100")

    query = {"sandbox_ids": f"{sandbox.sandbox_id},i0000000000000000dead"}

    def latest():
        return api.get("/sandboxes/metrics", params=query).json()["sandboxes"]

    found = until(latest, "the latest point", 35, 1)
    assert set(found) == {sandbox.sandbox_id}
    assert KEYS <= set(found[sandbox.sandbox_id])


def test_another_teams_metrics_are_403(api):
    other = "00000000-0000-4000-8000-000000000000"
    answer = api.get(f"/teams/{other}/metrics")
    refused(answer, 403, "are not authorized to access this team's")


def test_log_lines_are_what_the_cli_parses(api):
    with Sandbox.create(timeout=60) as sandbox:
        sandbox.commands.run("echo for-the-log")
        path = f"/sandboxes/{sandbox.sandbox_id}/logs"

        def entries():
            answer = api.get(path)
            assert answer.status_code == 200, answer.text
            return answer.json()["logs"]

        logs = until(entries, "a log line of the command", 10, 0.5)
        for entry in logs:
            moment(entry["timestamp"])
            line = json.loads(entry["line"])
            assert isinstance(line["level"], str) and line["level"]
            assert isinstance(line["message"], str)
        for entry in api.get(path).json()["logEntries"]:
            assert entry["level"] in ("debug", "info", "warn", "error")
            assert all(isinstance(value, str) for value in entry["fields"].values())


def test_logs_start_where_asked(api, sandbox):
    sandbox.commands.run("true")
    path = f"/sandboxes/{sandbox.sandbox_id}/logs"
    until(lambda: api.get(path).json()["logs"], "a log line", 10, 0.5)
    future = int((time.time() + 3600) * 1000)
    assert api.get(path, params={"start": future}).json()["logs"] == []
    assert len(api.get(path, params={"limit": 1}).json()["logs"]) == 1
    backward = api.get(f"/v2{path}")
    assert backward.status_code == 200
    stamps = [moment(entry["timestamp"]) for entry in backward.json()["logs"]]
    assert stamps == sorted(stamps, reverse=True)


@pytest.mark.parametrize("limit", ["-1", "1001"])
def test_a_log_limit_out_of_range_is_400(api, sandbox, limit):
    refused(api.get(f"/sandboxes/{sandbox.sandbox_id}/logs?limit={limit}"), 400)


def test_lines_are_searched_turned_round_and_paged(api):
    with Sandbox.create(timeout=60) as sandbox:
        for number in range(5):
            sandbox.commands.run(f"true line-{number}-of-mine")
        sandbox.commands.run("true other")
        path = f"/v2/sandboxes/{sandbox.sandbox_id}/logs"

        def found(**query):
            answer = api.get(path, params=query)
            assert answer.status_code == 200, answer.text
            return answer.json()["logs"]

        def all_mine():
            lines = found(search="process started", direction="forward")
            return lines if len(lines) >= 6 else None

        mine = until(all_mine, "a line for each command", 10, 0.2)
        commands = [line["fields"]["cmd"].rsplit(" ", 1)[-1] for line in mine]
        assert commands == [*(f"line-{number}-of-mine" for number in range(5)), "other"]
        assert found(search="process started") == mine[::-1], "backward unless told otherwise"
        assert found(search="nobody-wrote-this") == []
        assert len(found()) > len(mine)
        assert all(line["level"] in ("warn", "error") for line in found(level="warn"))
        # Pages begin at the moment that the one before ended with, which is told again.
        pages, cursor = [], 0
        while True:
            page = found(search="process started", direction="forward", cursor=cursor, limit=3)
            fresh = [line for line in page if line not in pages]
            if not fresh:
                break
            pages += fresh
            cursor = int(moment(pages[-1]["timestamp"]).timestamp() * 1000)
        assert pages == mine
