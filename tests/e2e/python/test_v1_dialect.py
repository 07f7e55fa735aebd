"""The SDK generation that speaks the v1 create and connect routes.

It can't be installed beside the current one; its interpreter runs the script below.
"""

import json
import os
import subprocess

import pytest

from support import env
from support.env import optional

SCRIPT = """
import json
from e2b import Sandbox, SandboxQuery
import e2b, importlib.metadata

report = {"version": importlib.metadata.version("e2b")}
sandbox = Sandbox.create(timeout=60, metadata={"dialect": "v1"}, envs={"A": "1"})
try:
    report["secured"] = bool(sandbox._envd_access_token)
    report["command"] = sandbox.commands.run("echo $A").stdout
    sandbox.files.write("old.txt", "old")
    report["file"] = sandbox.files.read("old.txt")
    report["entries"] = [e.name for e in sandbox.files.list("/home/user") if e.name == "old.txt"]
    again = Sandbox.connect(sandbox.sandbox_id, timeout=60)
    report["connect"] = again.commands.run("cat old.txt").stdout
    pages = Sandbox.list(query=SandboxQuery(metadata={"dialect": "v1"}))
    report["listed"] = sandbox.sandbox_id in [i.sandbox_id for i in pages.next_items()]
    sandbox.set_timeout(120)
    report["running"] = sandbox.is_running()
    report["info"] = sandbox.get_info().metadata
finally:
    report["killed"] = sandbox.kill()
report["killed_again"] = sandbox.kill()
print(json.dumps(report))
"""


@pytest.mark.skipif(
    not optional("WARREN_OLD_PYTHON"), reason="no interpreter with the older SDK was given"
)
def test_a_whole_life_in_the_older_dialect():
    # The older SDK checks the form of the key, so a key of ours must pass as it is.
    settings = {k: v for k, v in os.environ.items() if k != "E2B_VALIDATE_API_KEY"}
    done = subprocess.run(
        [optional("WARREN_OLD_PYTHON"), "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=90,
        env=settings,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert report.pop("version").startswith("2.45.")
    assert report == {
        "secured": True,
        "command": "1\n",
        "file": "old",
        "entries": ["old.txt"],
        "connect": "old",
        "listed": True,
        "running": True,
        "info": {"dialect": "v1"},
        "killed": True,
        "killed_again": False,
    }


def test_v1_requests_as_the_cli_bundles_them(api, create):
    body = {"timeout": 300, "secure": True, "allow_internet_access": True}
    made = create(body, version=1)
    assert made["envdAccessToken"] and made["sandboxID"]
    answer = api.post(f"/sandboxes/{made['sandboxID']}/connect", json={"timeout": 300})
    assert answer.status_code == 200 and answer.json()["sandboxID"] == made["sandboxID"]


def test_the_key_is_sent_as_every_generation_spells_it(anonymous):
    for name in ("X-API-KEY", "X-API-Key", "x-api-key"):
        assert anonymous.get("/sandboxes", headers={name: env.API_KEY}).status_code == 200
