"""Many cells at once, and the life of a sandbox around its cells."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2b import SandboxQuery

from support import env
from support.clients import CLIENTS

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=CLIENTS)
def client(request):
    """Each of the clients."""
    return CLIENTS[request.param]


@pytest.fixture
def own(client):
    """A sandbox of the test's own."""
    box = client.create(timeout=300)
    yield box
    box.kill()


def test_fifty_cells_at_once_over_ten_contexts(own):
    contexts = [own.create_code_context() for _ in range(10)]

    def cell(number):
        context = contexts[number % len(contexts)]
        return own.run_code(f"v = {number}; v", context=context, timeout=60).text

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(cell, range(50))) == [str(n) for n in range(50)]


def test_twenty_contexts_run_side_by_side(own):
    contexts = [own.create_code_context() for _ in range(20)]
    meeting = threading.Barrier(20)

    def cell(number):
        # Each cell ends when all have begun, which no queue would let them.
        code = f"import os, pathlib, time\npathlib.Path('/tmp/in{number}').touch()\n"
        code += "while sum(n.startswith('in') for n in os.listdir('/tmp')) < 20: time.sleep(0.02)\n"
        meeting.wait()
        return own.run_code(code + f"{number}", context=contexts[number], timeout=90).text

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(cell, range(20))) == [str(n) for n in range(20)]


def test_cells_of_one_context_run_one_after_another(own):
    own.run_code("order = []")
    code = "order.append('in'); import time; time.sleep(0.02); order.append('out')"
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda _: own.run_code(code, timeout=60).error, range(20)))
    assert done == [None] * 20
    assert own.run_code("order == ['in', 'out'] * 20").text == "True"


def test_a_sandbox_is_found_shared_and_ended(client, unique):
    box = client.create(timeout=300, envs={"A": "1"}, metadata={"test": unique})
    try:
        box.run_code("x = 5")
        other = client.connect(box.sandbox_id)
        assert other.run_code("import os; (x, os.environ['A'])").text == "(5, '1')"
        found = client.list(query=SandboxQuery(metadata={"test": unique})).next_items()
        assert [each.sandbox_id for each in found] == [box.sandbox_id]
        assert found[0].metadata == {"test": unique}
    finally:
        assert box.kill()
    assert not box.is_running()


def test_a_pause_keeps_variables_and_contexts(own, client):
    context = own.create_code_context(cwd="/tmp")
    own.run_code("x = [1, 2]; import itertools; counter = itertools.count(7)")
    own.run_code("y = 'other'; next", context=context)
    own.run_code("globalThis.z = 3", language="js")
    before = [each.id for each in own.list_code_contexts()]
    for turn in range(2):
        assert own.pause()
        again = client.connect(own.sandbox_id)
        assert again.run_code("x.append(3); x[:2], next(counter)").text == f"([1, 2], {7 + turn})"
        assert again.run_code("y", context=context).text == "other"
        assert again.run_code("globalThis.z", language="js").text == "3"
        assert [each.id for each in again.list_code_contexts()] == before
        # What a pause must not break: interrupts, and new kernels.
        made = again.create_code_context()
        assert again.run_code("import os; os.getpid() > 0", context=made).text == "True"
        again.remove_code_context(made)


def test_a_cell_goes_on_after_a_pause(own, client):
    box = own
    box.run_code("import threading, time\nticks = []\ndef tick():\n  while True:\n    ticks.append(1)\n    time.sleep(0.01)\nthreading.Thread(target=tick, daemon=True).start()")
    assert box.pause()
    again = client.connect(box.sandbox_id)
    code = "n = len(ticks)\nwhile len(ticks) == n: time.sleep(0.01)\n'ticks'"
    assert again.run_code(code, timeout=30).text == "ticks"


def test_kernels_go_on_in_forks_of_a_snapshot(own, client):
    own.run_code("x = [1]")
    # From here on OpenSSL has a generator of its own, with a state that forks share.
    own.run_code("import os, ssl; drawn = ssl.RAND_bytes(16); os.environ['KEPT'] = 'by the cell'")
    own.run_code("globalThis.z = 3", language="js")
    own.commands.run("exec -a kept sleep 600", background=True)
    snapshot = own.create_snapshot()
    made, random = [], set()
    try:
        for number in range(2):
            envs = {"OF_THE_FORK": str(number)}
            made.append(client.create(template=snapshot.snapshot_id, envs=envs, timeout=120))
            if not made[0].commands.run("pgrep -fx 'kept 600' || true").stdout:
                pytest.skip("this machine captures no memory")
            fork = made[number]
            assert fork.run_code(f"x.append({number}); x", timeout=30).text == f"[1, {number}]"
            names = ["E2B_SANDBOX_ID", "OF_THE_FORK", "KEPT"]
            told = fork.run_code(f"[os.environ.get(name) for name in {names}]").results[0].json
            assert told == [fork.sandbox_id, str(number), "by the cell"]
            random.add(fork.run_code("ssl.RAND_bytes(16).hex()").text)
            # Reached over ports, whose connections a capture ends.
            assert fork.run_code("globalThis.z", language="js", timeout=30).text == "3"
            again = fork.create_code_context()
            assert fork.run_code("1 + 1", context=again, timeout=30).text == "2"
        random.add(own.run_code("ssl.RAND_bytes(16).hex()").text)
        assert len(random) == 3
        assert own.run_code("x").text == "[1]"
        assert own.run_code("globalThis.z", language="js").text == "3"
    finally:
        for fork in made:
            fork.kill()
        client.delete_snapshot(snapshot.snapshot_id)


def test_a_private_sandbox_refuses_strangers(client):
    box = client.create(timeout=120, secure=True, network={"allow_public_traffic": False})
    try:
        assert box.run_code("1 + 1").text == "2"
        headers = {"e2b-sandbox-id": box.sandbox_id, "e2b-sandbox-port": "49999"}
        with env.client(env.SANDBOX_URL, headers=headers) as client:
            assert client.get("/health").status_code in {401, 403}
    finally:
        box.kill()
