"""Peers of the code interpreter: ipykernel and Jupyter Server as they are.

Prints one JSON document: durations in milliseconds, memory in bytes.
Arguments: how often a kernel, a server and a round trip are measured.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

import zmq
from jupyter_client.session import Session
from tornado.websocket import websocket_connect

FIRST, AGAIN = "1+1", "x+=1; x"


class Kernel:
    """A plain ipykernel and a bare client of it."""

    def __init__(self):
        self.dir = tempfile.TemporaryDirectory()
        file = os.path.join(self.dir.name, "connection.json")
        ip = os.path.join(self.dir.name, "s")
        ports = {"shell_port": 1, "iopub_port": 2, "control_port": 3, "stdin_port": 4, "hb_port": 5}
        key = uuid.uuid4().hex
        connection = {"transport": "ipc", "ip": ip, "key": key, "signature_scheme": "hmac-sha256"}
        with open(file, "w") as out:
            json.dump({**connection, **ports, "kernel_name": ""}, out)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", file]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **silent)
        while not all(os.path.exists(f"{ip}-{port}") for port in (1, 2)):
            time.sleep(0.001)
        context = zmq.Context.instance()
        self.shell, self.iopub = context.socket(zmq.DEALER), context.socket(zmq.SUB)
        self.iopub.subscribe(b"")
        self.shell.connect(f"ipc://{ip}-1")
        self.iopub.connect(f"ipc://{ip}-2")
        self.session = Session(key=key.encode())

    def hear(self):
        """Waits until what the kernel publishes arrives here."""
        while not self.iopub.poll(50):
            self.session.send(self.shell, "kernel_info_request", {})
            self.session.recv(self.shell, mode=0)

    def run(self, code):
        """Runs a cell up to its answer and the end of its output."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        request = self.session.send(self.shell, "execute_request", content)
        id = request["header"]["msg_id"]
        self.session.recv(self.shell, mode=0)
        while True:
            _, message = self.session.recv(self.iopub, mode=0)
            ours = message["parent_header"].get("msg_id") == id
            if ours and message["content"].get("execution_state") == "idle":
                return

    def private(self):
        """Memory that only this process has, in bytes."""
        with open(f"/proc/{self.process.pid}/smaps_rollup") as rollup:
            lines = [line.split() for line in rollup]
        return sum(int(line[1]) for line in lines if line[0].startswith("Private_")) * 1024

    def end(self):
        self.process.kill()
        self.process.wait()
        self.shell.close(0)
        self.iopub.close(0)


def kernels(times):
    """A kernel is started and has run its first cell."""
    series = []
    for _ in range(times):
        start = time.monotonic()
        kernel = Kernel()
        # A subscription that the kernel does not know of yet misses the end: no answer counts
        # before the one on the other channel.
        content = {"code": FIRST, "silent": False, "allow_stdin": False}
        kernel.session.send(kernel.shell, "execute_request", content)
        kernel.session.recv(kernel.shell, mode=0)
        series.append((time.monotonic() - start) * 1000)
        kernel.end()
    return series


async def server():
    """A Jupyter Server is started, starts a kernel, and that has run its first cell."""
    token = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home, "JUPYTER_RUNTIME_DIR": home}
        port = 20000 + uuid.uuid4().int % 20000
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"]
        command += [f"--port={port}", f"--IdentityProvider.token={token}"]
        command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={home}"]
        start = time.monotonic()
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=env, **silent)
        try:
            url = f"http://127.0.0.1:{port}/api/kernels?token={token}"
            while True:
                try:
                    request = urllib.request.Request(url, data=b"{}", method="POST")
                    kernel = json.load(urllib.request.urlopen(request))["id"]
                    break
                except urllib.error.URLError:
                    assert process.poll() is None, "the server has ended"
                    time.sleep(0.005)
            url = f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels?token={token}"
            socket = await websocket_connect(url)
            message = Session().msg("execute_request", {"code": FIRST, "silent": False})
            message["channel"] = "shell"
            await socket.write_message(json.dumps(message, default=str))
            while True:
                answer = json.loads(await socket.read_message())
                if answer["msg_type"] == "execute_reply":
                    return (time.monotonic() - start) * 1000
        finally:
            process.terminate()
            process.wait()


def round_trips(times):
    """A cell on a live kernel."""
    kernel = Kernel()
    kernel.hear()
    kernel.run("x = 0")
    for _ in range(20):
        kernel.run(AGAIN)
    series = []
    for _ in range(times):
        start = time.monotonic()
        kernel.run(AGAIN)
        series.append((time.monotonic() - start) * 1000)
    # What a second one shares with it is not only its own.
    other = Kernel()
    other.hear()
    other.run(FIRST)
    private = other.private()
    other.end()
    kernel.end()
    return series, private


def main():
    starts, servers, times = map(int, sys.argv[1:])
    series, private = round_trips(times)
    result = {
        "kernel_start_ms": kernels(starts),
        "server_start_ms": [asyncio.run(server()) for _ in range(servers)],
        "round_trip_ms": series,
        "kernel_private_bytes": private,
    }
    print(json.dumps(result))


main()
