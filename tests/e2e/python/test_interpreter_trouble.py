"""Cells that end badly, through the official synchronous client."""

import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from e2b import SandboxException, TimeoutException

from support import env
from support.clients import CLIENTS

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=CLIENTS)
def client(request):
    """Each of the clients."""
    return CLIENTS[request.param]


@pytest.fixture
def own(client):
    """A sandbox to be ruined."""
    box = client.create(timeout=300)
    yield box
    box.kill()


def test_a_client_that_gives_up_frees_the_context(own):
    with pytest.raises(TimeoutException):
        own.run_code("import time; time.sleep(300)", timeout=1)
    assert own.run_code("1 + 1", timeout=20).text == "2"


def test_a_client_that_vanishes_frees_the_context(own):
    headers = {"e2b-sandbox-id": own.sandbox_id, "e2b-sandbox-port": "49999"}
    body = {"code": "import time\nprint('up', flush=True)\ntime.sleep(300)"}
    with env.client(env.SANDBOX_URL, headers=headers) as client:
        with client.stream("POST", "/execute", json=body, timeout=30) as stream:
            for line in stream.iter_lines():
                if "up" in line:
                    break
    assert own.run_code("1 + 1", timeout=20).text == "2"


def test_a_client_that_is_killed_frees_the_context(own):
    code = "from e2b_code_interpreter import Sandbox; import sys\n"
    code += "box = Sandbox.connect(sys.argv[1])\n"
    code += "box.run_code('print(1, flush=True); import time; time.sleep(300)', on_stdout=lambda m: print('up', flush=True))"
    client = subprocess.Popen(
        [sys.executable, "-c", code, own.sandbox_id], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout.readline() == "up\n"
    os.kill(client.pid, signal.SIGKILL)
    client.wait()
    assert own.run_code("1 + 1", timeout=20).text == "2"


def test_a_cell_that_ignores_interrupts_can_be_restarted(own):
    context = own.create_code_context()
    code = "import signal, time\nsignal.signal(2, signal.SIG_IGN)\ntime.sleep(300)"
    with pytest.raises(TimeoutException):
        own.run_code(code, context=context, timeout=1)
    own.restart_code_context(context)
    assert own.run_code("1 + 1", context=context, timeout=20).text == "2"


def test_a_sandbox_killed_mid_cell_is_told(own):
    killer = threading.Timer(1.0, own.kill)
    killer.start()
    with pytest.raises(TimeoutException, match="killed"):
        own.run_code("import time; time.sleep(60)")
    killer.join()


def test_a_kernel_that_dies_is_an_error_of_its_cell(own):
    execution = own.run_code("import os; os.kill(os.getpid(), 9)", timeout=30)
    assert execution.error is not None
    assert own.run_code("2 + 2", timeout=30).text == "4"


def test_a_kernel_that_is_killed_mid_cell_is_told_and_replaced(own):
    def kill(message):
        own.commands.run("pkill -9 -u user -f warren-interpreter", user="root")

    code = "print('up', flush=True)\nimport time; time.sleep(300)"
    execution = own.run_code(code, on_stdout=kill, timeout=60)
    assert execution.logs.stdout == ["up\n"]
    assert execution.error.value == "Context was restarted: the kernel was killed"
    assert own.run_code("2 + 2", timeout=30).text == "4"


def test_memory_beyond_the_limit_is_an_error_of_its_cell(own):
    code = "hoard = []\nwhile True: hoard.append(bytearray(b'x' * 50_000_000))"
    execution = own.run_code(code, timeout=60)
    assert execution.error.value == "Context was restarted: the kernel ran out of memory and was killed"
    assert own.run_code("2 + 2", timeout=30).text == "4"
    # Another context's kernel that is killed later did not run out of memory.
    context = own.create_code_context()
    execution = own.run_code("import os; os.kill(os.getpid(), 9)", context=context, timeout=30)
    assert execution.error.value == "Context was restarted: the kernel was killed"


def test_a_program_of_a_cell_that_runs_out_of_memory_is_no_end_of_the_kernel(own):
    code = r"""
import subprocess, sys
grow = "hoard = []\nwhile True: hoard.append(bytearray(b'x' * 50_000_000))"
first = "open('/proc/self/oom_score_adj', 'w').write('1000')\n"
subprocess.run([sys.executable, "-c", first + grow]).returncode
"""
    assert own.run_code(code, timeout=60).text == "-9"
    assert own.run_code("2 + 2", timeout=30).text == "4"


def test_a_killed_service_comes_back(own):
    own.run_code("1")
    own.commands.run("pkill -9 -x interpreter", user="root")
    end = time.monotonic() + 30
    while True:
        try:
            if own.run_code("3 + 3", timeout=20, request_timeout=5).text == "6":
                return
        except (SandboxException, httpx.HTTPError):
            assert time.monotonic() < end
            time.sleep(0.2)


def test_a_cell_that_forks_and_its_child_that_stays(own):
    code = "import os\nif os.fork() == 0: os._exit(0)\nos.wait()\n'parent'"
    assert own.run_code(code, timeout=30).text == "parent"
    code = "import time\nchild = os.fork()\nif child == 0:\n  time.sleep(300)\n  os._exit(0)\nchild"
    child = own.run_code(code, timeout=30).text
    assert own.run_code("2 + 2", timeout=30).text == "4"
    own.restart_code_context(own.list_code_contexts()[0])
    assert own.run_code(f"import os; os.path.exists('/proc/{child}')").text == "False"


def test_a_cell_that_blocks_signals(own):
    context = own.create_code_context()
    code = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
    assert own.run_code(code + "'blocked'", context=context, timeout=30).text == "blocked"
    with pytest.raises(TimeoutException):
        own.run_code("time.sleep(300)", context=context, timeout=1)
    # Others don't wait for it, and it can be had back.
    assert own.run_code("2 + 2", timeout=30).text == "4"
    own.restart_code_context(context)
    assert own.run_code("3 + 3", context=context, timeout=30).text == "6"


def test_a_cell_that_fills_the_disk(own):
    code = """
import os
size = 1 << 30
with open("big", "wb") as file:
    end = 0
    while size >= 1 << 12:
        try:
            os.posix_fallocate(file.fileno(), end, size)
            end += size
        except OSError as error:
            full = error.errno
            size //= 2
full, end > 1 << 30
"""
    assert own.run_code(code, timeout=120).text == "(28, True)"
    execution = own.run_code("open('more', 'wb').write(bytes(1 << 20))", timeout=30)
    assert execution.error.name == "OSError" and "No space left" in execution.error.value
    # Cells that write nothing run on, and so do new contexts.
    assert own.run_code("2 + 2", timeout=30).text == "4"
    own.run_code("os.remove('big')")
    assert own.run_code("open('more', 'wb').write(bytes(1 << 20))", timeout=30).text == "1048576"
