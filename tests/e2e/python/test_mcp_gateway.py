"""The SDK's `mcp` option: servers inside a sandbox, behind one address and a token."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from e2b import AsyncSandbox, Sandbox, SandboxException, Template

from support import env
from support.env import client, host_of
from support.server import Server

PORT = 50005
JS = Path(__file__).resolve().parents[1] / "js"
GUEST = Path(__file__).resolve().parents[3] / "guest/mcp-gateway/tests/it/server.py"
HOST_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def template(api) -> str:
    """`base` with the gateway on the path, and a server where its repository would be."""
    name = f"mcp-{os.urandom(6).hex()}"
    recipe = (
        Template(file_context_path=GUEST.parent)
        .from_base_image()
        .copy("server.py", "/opt/mcp-gateway/acme/tools/server.py", user="root")
        .make_symlink("/.warren/bin/mcp-gateway", "/usr/local/bin/mcp-gateway", user="root")
    )
    Template.build(recipe, name)
    yield name
    api.delete(f"/templates/{name}")


def acme(*tools: str, **settings) -> dict:
    command = " ".join(["python3 server.py acme", *tools])
    return {"github/acme/tools": {"run_cmd": command, "envs": {"WORD": "w"}, **settings}}


JS_CLIENT = """
import { Sandbox } from 'e2b'
const sandbox = await Sandbox.create('with-servers', { mcp: { time: {}, memory: {} } })
try {
  const ask = { jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }
  const { stdout } = await sandbox.commands.run(
    `curl -sS localhost:50005/mcp -H 'content-type: application/json'` +
      ` -H 'authorization: Bearer ${await sandbox.getMcpToken()}' -d '${JSON.stringify(ask)}'`
  )
  console.log(stdout)
} finally {
  await sandbox.kill()
}
"""


class Mcp:
    """A client of the protocol, as bytes over HTTP."""

    def __init__(self, sandbox: Sandbox, url: str = env.SANDBOX_URL):
        assert sandbox.get_mcp_url() == f"https://{sandbox.get_host(PORT)}/mcp"
        self.http = client(url, headers={"host": host_of(PORT, sandbox.sandbox_id)}, timeout=60)
        self.token = sandbox.get_mcp_token()

    def post(self, message: dict | list, token: str | None = None) -> httpx.Response:
        headers = {
            "authorization": f"Bearer {self.token if token is None else token}",
            "accept": "application/json, text/event-stream",
        }
        return self.http.post("/mcp", json=message, headers=headers)

    def call(self, method: str, **params) -> dict:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self.post(message)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    def begin(self) -> dict:
        about = self.call(
            "initialize",
            protocolVersion="2025-06-18",
            capabilities={},
            clientInfo={"name": "test", "version": "1"},
        )
        initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert self.post(initialized).status_code == 202
        return about["result"]

    def tools(self) -> list[str]:
        return [tool["name"] for tool in self.call("tools/list")["result"]["tools"]]


def test_a_server_behind_its_token(template):
    with Sandbox.create(template, timeout=120, mcp=acme("add", "sub")) as sandbox:
        mcp = Mcp(sandbox)
        assert mcp.begin()["serverInfo"]["name"] == "mcp-gateway"
        assert mcp.tools() == ["add", "sub"]
        said = mcp.call("tools/call", name="add", arguments={})["result"]["content"]
        assert said == [{"type": "text", "text": "acme ran add with w"}]
        assert mcp.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, "wrong").status_code == 401
        # Whoever connects later finds the token in the sandbox.
        again = Sandbox.connect(sandbox.sandbox_id)
        assert again.get_mcp_token() == mcp.token
        # The file is not for the user.
        mode = sandbox.commands.run("stat -c %a /etc/mcp-gateway/.token", user="root").stdout
        assert mode == "600\n"


def test_it_goes_on_after_a_pause(template):
    with Sandbox.create(template, timeout=120, mcp=acme("add")) as sandbox:
        mcp = Mcp(sandbox)
        sandbox.pause()
        sandbox.connect()
        assert mcp.tools() == ["add"]


async def test_the_asynchronous_client(template):
    sandbox = await AsyncSandbox.create(template, timeout=120, mcp=acme("add"))
    try:
        assert await sandbox.get_mcp_token()
        assert sandbox.get_mcp_url() == f"https://{sandbox.get_host(PORT)}/mcp"
    finally:
        await sandbox.kill()


@pytest.mark.parametrize(
    ("mcp", "words"),
    [
        ({"sonarqube": {"token": "t"}}, "\"sonarqube\" can't be had here"),
        ({"brave": {}}, '"brave" needs the setting "apiKey"'),
        (acme("add", install_cmd="echo no compiler >&2; false"), "no compiler"),
        ({"github/acme/tools": {"run_cmd": "echo broken >&2; exit 3"}}, "broken"),
    ],
)
def test_a_failure_names_its_cause_and_leaves_no_sandbox(template, api, mcp, words):
    def made() -> list[str]:
        listed = api.get("/v2/sandboxes", params={"template": template})
        return [entry["sandboxID"] for entry in listed.json()]

    with pytest.raises(SandboxException, match="Failed to start MCP gateway") as error:
        Sandbox.create(template, timeout=120, mcp=mcp)
    assert words in str(error.value)
    assert made() == []


def with_packages(recipe, trusted: Path):
    """A recipe with servers of PyPI and npm, fetched when it is built."""
    # A machine behind a proxy of its own trusts more than the usual authorities.
    (trusted / "ca.crt").write_bytes(Path(HOST_CERTIFICATES).read_bytes())
    names = ("NODE_EXTRA_CA_CERTS", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    recipe = recipe.copy("ca.crt", "/opt/ca.crt", user="root")
    return recipe.set_envs(dict.fromkeys(names, "/opt/ca.crt"))


def check_packages(sandbox: Sandbox, url: str) -> None:
    asked = Mcp(sandbox, url)
    asked.begin()
    tools = asked.tools()
    assert {"get_current_time", "read_graph", "list_directory"} <= set(tools)
    now = asked.call("tools/call", name="get_current_time", arguments={"timezone": "UTC"})
    assert json.loads(now["result"]["content"][0]["text"])["timezone"] == "UTC"
    listed = asked.call("tools/call", name="list_directory", arguments={"path": "/etc"})
    assert "hostname" in listed["result"]["content"][0]["text"]


SERVERS = {"time": {}, "memory": {}, "filesystem": {"paths": ["/etc"]}}


@pytest.mark.timeout(400)
def test_packages_of_npm_and_pypi(tmp_path, api, unique):
    recipe = Template(file_context_path=tmp_path).from_base_image()
    recipe = recipe.run_cmd("apt-get update && apt-get install -y pipx", user="root")
    recipe = recipe.make_symlink(
        "/.warren/bin/mcp-gateway", "/usr/local/bin/mcp-gateway", user="root"
    )
    recipe = with_packages(recipe, tmp_path)
    recipe = recipe.set_envs({"PIPX_HOME": "/opt/pipx", "PIPX_BIN_DIR": "/usr/local/bin"})
    recipe = recipe.run_cmd("mcp-gateway pull time memory filesystem", user="root")
    Template.build(recipe, unique)
    try:
        with Sandbox.create(unique, timeout=300, mcp=SERVERS) as sandbox:
            check_packages(sandbox, env.SANDBOX_URL)
    finally:
        api.delete(f"/templates/{unique}")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1500)
def test_the_template_of_the_server(tmp_path):
    server = Server(tmp_path)
    flags = ("--warm", "0", "--templates", "mcp-gateway", "--wait-templates")
    server.start(*flags, seconds=1000)
    try:
        recipe = Template(file_context_path=tmp_path).from_template("mcp-gateway")
        recipe = with_packages(recipe, tmp_path).add_mcp_server(["time", "memory"])
        Template.build(recipe, "with-servers", **server.options)
        with server.create(template="with-servers", mcp=SERVERS) as sandbox:
            check_packages(sandbox, server.url)
        # The other client.
        said = subprocess.run(
            ["node", "--input-type=module", "-e", JS_CLIENT],
            env={**os.environ, "E2B_API_KEY": server.key, "E2B_API_URL": server.url}
            | {"E2B_SANDBOX_URL": server.url},
            cwd=JS,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert said.returncode == 0, said.stderr
        assert "get_current_time" in said.stdout and "read_graph" in said.stdout
    finally:
        server.clear()
