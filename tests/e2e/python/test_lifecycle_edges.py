"""What happens at the edges of a life: in the middle of a pause, at the limit of a team, and
when the first process runs out of memory.

The tests share a server of their own, so nothing else may run beside them.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from e2b import Sandbox
from e2b.exceptions import NotFoundException, RateLimitException, SandboxException

from support.api import refused
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]

FLAGS = ("--warm", "0", "--slots", "4", "--max-sandboxes", "3", "--base-memory-mib", "512")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("edges"))
    server.start(*FLAGS)
    yield server
    server.clear()


@pytest.fixture(autouse=True)
def nothing_left(server):
    yield
    for sandbox_id in server.listed():
        Sandbox.kill(sandbox_id, **server.options)


def test_a_sandbox_that_is_being_paused_cant_be_copied_or_changed(server):
    sandbox = server.create()
    path = f"/sandboxes/{sandbox.sandbox_id}"
    # The pause waits until these bytes are on the disk.
    write = "dd if=/dev/urandom of=/home/user/bytes bs=1M count=300 status=none"

    def meet(api) -> list[tuple[int, str]]:
        """Snapshot, fork and new rules, asked for while the sandbox is on its way."""
        sandbox.commands.run(write, timeout=120)
        with ThreadPoolExecutor(1) as pool:
            pause = pool.submit(api.post, f"{path}/pause", json={"memory": False}, timeout=120)
            # Refused for as long as it is on its way, and once it has come there.
            while (moved := api.post(f"{path}/timeout", json={"timeout": 300})).is_success:
                pass
            answers = [api.post(f"{path}/{what}", json={}) for what in ("snapshots", "fork")]
            answers.append(api.put(f"{path}/network", json={"denyOut": ["1.1.1.1"]}))
            is_on_its_way = moved.status_code == 409 and not pause.done()
            assert pause.result().status_code == 204
        sandbox.connect(timeout=300)
        met = [(answer.status_code, answer.json()["message"]) for answer in (moved, *answers)]
        return met if is_on_its_way else []

    with server.api() as api:
        for _ in range(10):
            if met := meet(api):
                break
    state = f"Sandbox '{sandbox.sandbox_id}' cannot be"
    assert met == [
        (409, f'Sandbox "{sandbox.sandbox_id}" is being paused'),
        (409, f"{state} snapshotted while in 'pausing' state"),
        (409, f"{state} forked while in 'pausing' state"),
        (409, f'Sandbox "{sandbox.sandbox_id}" is being paused'),
    ]


def test_a_fork_beyond_the_limit_is_an_error_in_its_place(server):
    source, _other = server.create(), server.create()
    source.files.write("/home/user/kept", "yes")
    with server.api() as api:
        path = f"/sandboxes/{source.sandbox_id}/fork"
        refused(api.post(path, json={"count": 3}), 400, "must be lower than the maximum")
        answer = api.post(path, json={"count": 2, "timeout": 300})
    assert answer.status_code == 201
    made = [entry for entry in answer.json() if "sandbox" in entry]
    errors = [entry["error"] for entry in answer.json() if "error" in entry]
    assert len(made) == 1 and len(errors) == 1, answer.text
    assert errors[0]["code"] == 429
    copy = server.connect(made[0]["sandbox"]["sandboxID"])
    assert copy.files.read("/home/user/kept") == "yes"
    copy.kill()
    kinds = sorted(type(fork).__name__ for fork in source.fork(count=2))
    assert kinds == [RateLimitException.__name__, Sandbox.__name__]
    assert source.commands.run("echo on").stdout == "on\n"


def test_a_sandbox_whose_first_process_ran_out_of_memory_says_so(server):
    sandbox = server.create()
    # The kernel would take commands before the agent, which is smaller.
    sandbox.commands.run("echo 1000 > /proc/1/oom_score_adj", user="root")

    def is_gone() -> bool:
        try:
            filling = "echo 0 > /proc/$$/oom_score_adj; exec cat /dev/zero > /dev/shm/$$"
            sandbox.commands.run(filling, timeout=20)
        except (SandboxException, NotFoundException):
            pass
        with server.api() as api:
            return api.get(f"/sandboxes/{sandbox.sandbox_id}").status_code == 404

    until(is_gone, "its first process is killed", 90, 0.1)
    with server.api() as api:
        body = refused(api.get(f"/sandboxes/{sandbox.sandbox_id}"), 404, "ran out of memory (it used ")
        assert body["error_code"] == "sandbox_out_of_memory"
        path = f"/events/sandboxes/{sandbox.sandbox_id}?types=sandbox.lifecycle.killed"
        [event] = api.get(path).json()
    assert event["eventData"]["reason"] == "out_of_memory"
    with pytest.raises(SandboxException, match="ran out of memory"):
        sandbox.commands.run("true")
