"""`warren mcp`, as an agent's program starts it, and over HTTP."""

import json
import os
import subprocess
from contextlib import contextmanager

import httpx
import pytest

from support import env
from support.server import free_port
from support.wait import until

pytestmark = pytest.mark.timeout(120)

TOOLS = {
    "create_sandbox", "list_sandboxes", "kill_sandbox", "list_templates", "run_code",
    "run_command", "read_file", "write_file", "list_files", "get_host",
}  # fmt: skip
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def program(*flags: str, **kwargs) -> subprocess.Popen:
    binary = env.optional("WARREN_BIN")
    assert binary, "WARREN_BIN is not set: start the suite through its runner"
    return subprocess.Popen([binary, "mcp", *flags], env=os.environ, **kwargs)


class Conversation:
    """One conversation over the standard input and output of a program."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.last = 0
        info = self.ask("initialize", HELLO)
        assert info["serverInfo"]["name"] == "warren"
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message: dict) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: dict) -> dict:
        self.last += 1
        self.send({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
        while True:
            line = self.process.stdout.readline()
            assert line, "the program ended"
            answer = json.loads(line)
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]

    def call(self, tool: str, **arguments) -> dict:
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def text(self, tool: str, **arguments) -> str:
        answer = self.call(tool, **arguments)
        assert not answer.get("isError"), answer
        return "\n".join(part["text"] for part in answer["content"] if part["type"] == "text")


@contextmanager
def conversation(*flags: str):
    process = program(*flags, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Conversation(process)
        process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)


def running(api, sandbox_id: str) -> bool:
    return api.get(f"/sandboxes/{sandbox_id}").status_code == 200


def test_an_agent_has_the_tools(api):
    with conversation("--template", "base") as agent:
        tools = agent.ask("tools/list", {})["tools"]
        assert {tool["name"] for tool in tools} == TOOLS
        assert all(tool["description"] and tool["inputSchema"] for tool in tools)
        assert "exit code: 0" in agent.text("run_command", command="echo kept > f")
        # Without an id, all calls of a conversation meet in one sandbox.
        assert agent.text("read_file", path="f") == "kept\n"
        assert agent.text("write_file", path="d/g", content="aGk=", base64=True) == "2 bytes written"
        assert agent.text("list_files", path="d") == "g 2\n"
        own = agent.text("run_command", command="echo $E2B_SANDBOX_ID").splitlines()[1]
        assert agent.text("get_host", port=80).startswith(f"80-{own}.")
        failed = agent.call("run_command", command="echo no >&2; exit 3")
        assert failed["isError"] and "exit code: 3" in json.dumps(failed)
        assert agent.call("read_file", path="/nowhere")["isError"]
        other = agent.text("create_sandbox", template="base", timeout_seconds=60)
        assert other in agent.text("list_sandboxes") and running(api, other)
        assert agent.text("kill_sandbox", sandbox_id=other) == "killed"
        assert "base" in agent.text("list_templates")
        assert agent.call("run_command", command="true", sandbox_id=other)["isError"]
    # What the conversation made for itself ends with it.
    until(lambda: not running(api, own), "its sandbox is gone", 10)


def test_an_agent_runs_cells():
    with conversation() as agent:
        assert agent.text("run_code", code="x = 20") == "(no output)"
        assert agent.text("run_code", code="print('out')\nx + 1") == "stdout:\nout\n\n21"
        raised = agent.call("run_code", code="1 / 0")
        assert raised["isError"] and "ZeroDivisionError" in raised["content"][0]["text"]
        plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
        content = agent.call("run_code", code=plot)["content"]
        assert [p["mimeType"] for p in content if p["type"] == "image"] == ["image/png"]


def test_over_http_the_key_is_asked_for():
    port = free_port()
    process = program("--template", "base", "--http", f"127.0.0.1:{port}", stderr=subprocess.PIPE)
    accept = {"accept": "application/json, text/event-stream"}
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    try:

        def ask(**headers) -> httpx.Response | None:
            try:
                url = f"http://127.0.0.1:{port}/mcp"
                return httpx.post(url, json=begin, headers=accept | headers, trust_env=False)
            except httpx.TransportError:
                return None

        assert until(ask, "it answers").status_code == 401
        assert ask(authorization="Bearer wrong").status_code == 401
        begun = ask(authorization=f"Bearer {env.API_KEY}")
        assert begun.status_code == 200 and '"name":"warren"' in begun.text
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)
