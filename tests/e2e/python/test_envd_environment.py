"""Platform variables and files, metrics of the agent, init from inside, ports."""

import json

import pytest
from e2b import Sandbox

from support.env import host_of
from support.wait import until


def test_the_platforms_variables(sandbox):
    sandbox_id = sandbox.sandbox_id
    result = sandbox.commands.run("echo $E2B_SANDBOX $E2B_SANDBOX_ID $E2B_TEMPLATE_ID")
    template = sandbox.get_info().template_id
    assert result.stdout == f"true {sandbox_id} {template}\n"
    for name, value in (
        (".E2B_SANDBOX", "true"),
        (".E2B_SANDBOX_ID", sandbox_id),
        (".E2B_TEMPLATE_ID", template),
    ):
        assert sandbox.files.read(f"/run/e2b/{name}") == value


def test_the_variables_route(envd, sandbox):
    found = envd.http.get("/envs").json()
    assert found["E2B_SANDBOX"] == "true" and found["E2B_SANDBOX_ID"] == sandbox.sandbox_id
    assert all(isinstance(value, str) for value in found.values())


def test_the_agents_metrics(envd):
    answer = envd.http.get("/metrics")
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    fields = ("ts", "cpu_count", "cpu_used_pct", "mem_total", "mem_used", "mem_cache")
    for name in (*fields, "mem_total_mib", "mem_used_mib", "disk_total", "disk_used"):
        assert isinstance(found[name], (int, float)), name
    assert 0 < found["mem_used"] <= found["mem_total"]
    assert 0 < found["disk_used"] <= found["disk_total"]


def test_the_size_is_what_the_api_says(sandbox, api):
    detail = api.get(f"/sandboxes/{sandbox.sandbox_id}").json()
    inside = json.loads(
        sandbox.commands.run(
            'python3 -c \'import os,json; s=os.statvfs("/");'
            "print(json.dumps([s.f_blocks*s.f_frsize, os.cpu_count()]))'"
        ).stdout
    )
    assert abs(inside[0] - detail["diskSizeMB"] * 2**20) < 0.15 * detail["diskSizeMB"] * 2**20


def test_a_guest_can_not_initialise_the_agent(envd, sandbox):
    for header in ("", "-H 'X-Access-Token: guess'"):
        for body in ("{}", '{"accessToken":"guess"}', '{"accessToken":""}', ""):
            result = sandbox.commands.run(
                f"curl -s -o /dev/null -w '%{{http_code}}' -X POST {header} "
                f"-H 'Content-Type: application/json' -d '{body}' http://localhost:49983/init"
            )
            assert result.stdout == "401", (header, body)
    # The old token still works, so it was neither cleared nor replaced.
    assert envd.http.get("/envs").status_code == 200
    assert envd.anonymous.get("/envs", headers={"x-access-token": "guess"}).status_code == 401


def test_the_events_address_knows_the_sandbox(sandbox):
    result = sandbox.commands.run("curl -sS --max-time 5 $E2B_EVENTS_ADDRESS/me")
    assert json.loads(result.stdout)["sandboxID"] == sandbox.sandbox_id


def test_the_events_address_works_without_internet():
    with Sandbox.create(timeout=60, allow_internet_access=False) as sandbox:
        result = sandbox.commands.run("curl -sS --max-time 5 $E2B_EVENTS_ADDRESS/me")
        assert json.loads(result.stdout)["sandboxID"] == sandbox.sandbox_id


SERVER = """
import http.server, socket, sys
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[1].encode())
    def log_message(self, *args): pass
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    "port,address",
    [(7001, "0.0.0.0"), (7002, "::"), (7003, "127.0.0.1"), (7004, "localhost"), (7005, "::1")],
)
def test_servers_on_every_local_address_are_reached(sandbox, edge, port, address):
    sandbox.files.write("/tmp/server.py", SERVER)
    handle = sandbox.commands.run(
        f"python3 /tmp/server.py {address} {port}", background=True, timeout=0
    )
    host = {"host": host_of(port, sandbox.sandbox_id)}

    def served():
        answer = edge.get("/", headers=host)
        return answer.status_code == 200 and answer.text

    try:
        assert until(served, f"the server on {address}", 10) == address
    finally:
        handle.kill()

    def closed():
        answer = edge.get("/", headers=host)
        return answer.status_code == 502 and "port is not open" in answer.text

    assert until(closed, "the port closes", 10)


def test_no_forwarder_is_listed(own_sandbox, edge):
    command = "python3 -m http.server -b 127.0.0.1 7010"
    handle = own_sandbox.commands.run(command, background=True, timeout=0)
    host = {"host": host_of(7010, own_sandbox.sandbox_id)}
    until(lambda: edge.get("/", headers=host).status_code == 200, "the server", 10)
    assert [p.pid for p in own_sandbox.commands.list()] == [handle.pid]


def test_a_sandbox_can_call_itself_over_loopback(sandbox):
    assert sandbox.commands.run("ping -c1 -W2 127.0.0.1").exit_code == 0
    assert (
        sandbox.commands.run(
            "curl -sS -o /dev/null -w '%{http_code}' http://localhost:49983/health"
        ).stdout
        == "204"
    )
