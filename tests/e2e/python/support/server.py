"""Server instances of a test's own, with their own data and port."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from e2b import Sandbox

from support.env import client, optional
from support.wait import until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Server:
    """One server on one data directory; it may be started many times."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int | None = None):
        self.binary = optional("WARREN_BIN")
        assert self.binary, "WARREN_BIN is not set: start the suite through its runner"
        self.layers = optional("WARREN_LAYERS_DIR")
        self.data = directory / "data"
        self.key_file = directory / "api-key"
        self.log = directory / "server.log"
        self.host, self.port = host, port or free_port()
        self.url = f"http://{self.host}:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(
        self,
        *flags: str,
        seconds: float = 60,
        abort_at: str | None = None,
        within: Sequence[str] = (),
    ) -> "Server":
        """Starts it, under a program such as `unshare` if one is named, and returns when it
        answers, which it must in this time. It dies when it comes to `abort_at`."""
        command = [*within, self.binary, "up", "--data-dir", self.data, "--api-key-file", self.key_file]
        command += ["--templates", "none"]
        command += ["--listen", f"{self.host}:{self.port}", *flags]
        if self.layers:
            command += ["--layers-dir", self.layers]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("E2B_", "WARREN_"))}
        if abort_at:
            env["WARREN_TEST_ABORT_AT"] = abort_at
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        until(self._answers, f"the server answers; see {self.log}", seconds)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the server ended: {self.log.read_text()[-3000:]}"
        try:
            with client(self.url, timeout=2) as plain:
                return plain.get("/health").is_success and self.key_file.exists()
        except httpx.TransportError:
            return False

    def crash(self) -> None:
        """Kills the server without a chance to clean up."""
        self.process.kill()
        self.process.wait(10)
        # Under another program the server is its child, which dies a moment later.
        until(self._is_port_free, "the port is free", 10)

    def _is_port_free(self) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError:
                return False
        return True

    def stop(self, seconds: float = 45) -> int:
        """Asks the server to stop and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def clear(self) -> None:
        """Ends everything that this instance has on the host."""
        if self.process is None or self.process.poll() is not None:
            self.start("--end-sandboxes")
        else:
            self.crash()
            self.start("--end-sandboxes")
        self.stop()

    @property
    def key(self) -> str:
        return self.key_file.read_text().strip()

    @property
    def options(self) -> dict[str, str]:
        """What the SDK needs to talk to this server."""
        return {"api_key": self.key, "api_url": self.url, "sandbox_url": self.url}

    @property
    def volume_options(self) -> dict[str, str]:
        """What the SDK's volumes need to talk to this server."""
        return {"api_key": self.key, "api_url": self.url}

    def api(self) -> httpx.Client:
        return client(self.url, headers={"X-API-Key": self.key})

    def create(self, **kwargs) -> Sandbox:
        return Sandbox.create(**{"timeout": 300, **kwargs}, **self.options)

    def connect(self, sandbox_id: str) -> Sandbox:
        return Sandbox.connect(sandbox_id, **self.options)

    def listed(self) -> set[str]:
        with self.api() as api:
            answer = api.get("/v2/sandboxes")
            assert answer.status_code == 200, answer.text
            return {entry["sandboxID"] for entry in answer.json()}


def wait_past(moment: float) -> None:
    """Waits until a moment of the monotonic clock is over."""
    time.sleep(max(0.0, moment - time.monotonic()))
