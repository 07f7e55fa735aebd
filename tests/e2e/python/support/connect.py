"""The agent's wire as bytes: Connect with the JSON codec over plain HTTP.

The SDKs hide what goes over the wire; the exact assertions need it.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from support.env import ENVD_PORT, SANDBOX_URL, client

STREAM = "application/connect+json"
END_STREAM = 0x02


def basic(user: str) -> dict[str, str]:
    """The header that names the user of an RPC."""
    token = base64.b64encode(f"{user}:".encode()).decode()
    return {"authorization": f"Basic {token}"}


def envelope(message: dict | bytes, flags: int = 0) -> bytes:
    """One stream frame."""
    payload = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">BI", flags, len(payload)) + payload


def signature(path: str, operation: str, user: str, token: str, expires: int | None = None) -> str:
    """A signature of a file URL, computed independently of the SDK."""
    parts = [path, operation, user, token] + ([] if expires is None else [str(expires)])
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


class Stream:
    """The frames of one response, read lazily."""

    def __init__(self, response: httpx.Response):
        self.response = response
        self.flags: list[int] = []
        self.trailer: dict | None = None
        self._buffer = b""
        self._chunks = response.iter_raw()

    def _take(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                assert not self._buffer, f"the stream ended inside a frame: {self._buffer!r}"
                return None
            self._buffer += chunk
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def __iter__(self) -> Iterator[dict]:
        """Messages up to the end-of-stream frame, which goes to `trailer`."""
        while (head := self._take(5)) is not None:
            flags, length = struct.unpack(">BI", head)
            payload = self._take(length) if length else b""
            assert payload is not None, "the stream ended after a frame's head"
            self.flags.append(flags)
            message = json.loads(payload)
            if flags & END_STREAM:
                self.trailer = message
                return
            yield message

    def first(self, kind: str) -> dict:
        """Skips to the first message of a kind."""
        for message in self:
            event = message.get("event", message)
            if kind in event:
                return event[kind]
        raise AssertionError(f"no {kind} event before the end {self.trailer}")


@dataclass
class Outcome:
    """Everything one process stream said."""

    pid: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    pty: bytes = b""
    end: dict | None = None
    keepalives: int = 0
    kinds: list[str] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    trailer: dict | None = None

    @property
    def error(self) -> dict:
        """The error of the end-of-stream frame."""
        assert self.trailer is not None, "the stream has no end-of-stream frame"
        return self.trailer.get("error", {})

    def feed(self, message: dict) -> str:
        """Records one message and tells its kind."""
        ((kind, value),) = message["event"].items()
        self.kinds.append(kind)
        if kind == "start":
            self.pid = value["pid"]
        elif kind == "end":
            self.end = value
        elif kind == "keepalive":
            self.keepalives += 1
        else:
            ((channel, data),) = value.items()
            setattr(self, channel, getattr(self, channel) + base64.b64decode(data))
        return kind


class Envd:
    """A sandbox's agent through the proxy, addressed by the routing headers."""

    def __init__(self, sandbox_id: str, token: str | None):
        self.sandbox_id = sandbox_id
        self.token = token
        self.routing = {"e2b-sandbox-id": sandbox_id, "e2b-sandbox-port": str(ENVD_PORT)}
        headers = dict(self.routing)
        if token:
            headers["x-access-token"] = token
        self.http = client(SANDBOX_URL, headers=headers)
        #: The same sandbox for a caller who has no token.
        self.anonymous = client(SANDBOX_URL, headers=self.routing)

    def close(self) -> None:
        self.http.close()
        self.anonymous.close()

    def unary(self, method: str, message: dict, **headers: str) -> httpx.Response:
        """A unary call. Header names are written with `_` for `-`."""
        sent = {"connect-protocol-version": "1", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"/{method}", content=json.dumps(message), headers=sent)

    @contextmanager
    def stream(self, method: str, message: dict, timeout: float = 30, **headers: str):
        """A server stream; leaving the block drops the connection."""
        sent = {"connect-protocol-version": "1", "content-type": STREAM}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with self.http.stream(
            "POST", f"/{method}", content=envelope(message), headers=sent, timeout=timeout
        ) as response:
            yield Stream(response)

    def outcome(self, method: str, message: dict, timeout: float = 30, **headers: str) -> Outcome:
        """Runs a process stream to its end."""
        with self.stream(method, message, timeout, **headers) as stream:
            return drain(stream)

    def run(self, command: str, *, envs=None, cwd=None, timeout: float = 30, **headers) -> Outcome:
        """Runs a shell command as the SDK does and collects its stream."""
        return self.outcome(
            "process.Process/Start", bash(command, envs=envs, cwd=cwd), timeout, **headers
        )

    def stat(self, path: str, **headers: str) -> httpx.Response:
        return self.unary("filesystem.Filesystem/Stat", {"path": path}, **headers)

    def processes(self) -> list[dict]:
        """What List reports."""
        return self.unary("process.Process/List", {}).json().get("processes", [])

    def pids(self) -> set[int]:
        return {process["pid"] for process in self.processes()}

    def signal(self, pid: int, name: str = "SIGNAL_SIGKILL") -> httpx.Response:
        return self.unary("process.Process/SendSignal", {"process": {"pid": pid}, "signal": name})

    def send(self, pid: int, data: bytes, channel: str = "stdin") -> httpx.Response:
        encoded = base64.b64encode(data).decode()
        message = {"process": {"pid": pid}, "input": {channel: encoded}}
        return self.unary("process.Process/SendInput", message)


def bash(command: str, *, envs=None, cwd=None, stdin: bool | None = False) -> dict:
    """A Start request for a shell command."""
    process = {"cmd": "/bin/bash", "args": ["-l", "-c", command]}
    if envs:
        process["envs"] = envs
    if cwd is not None:
        process["cwd"] = cwd
    request: dict = {"process": process}
    if stdin is not None:
        request["stdin"] = stdin
    return request


def drain(stream: Stream) -> Outcome:
    """Collects a process stream up to its end."""
    outcome = Outcome()
    for message in stream:
        outcome.feed(message)
    outcome.flags = stream.flags
    outcome.trailer = stream.trailer
    return outcome
