"""Watching directories."""

import re
import threading

import pytest
from e2b import FilesystemEventType, NotFoundException, SandboxException

from support.api import rpc_error
from support.connect import drain
from support.wait import until

FS = "filesystem.Filesystem"
C, W, R, N, M = (f"EVENT_TYPE_{x}" for x in ("CREATE", "WRITE", "REMOVE", "RENAME", "CHMOD"))


class Watch:
    """Collects a watch stream's events in the background until its deadline."""

    def __init__(self, envd, path: str, **options):
        self.events: list[dict] = []
        self.kinds: list[str] = []
        self._armed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(envd, path, options), daemon=True)
        self._thread.start()
        assert self._armed.wait(10), "the watch was not armed"

    def _read(self, envd, path, options):
        message = {"path": path, **options}
        with envd.stream(f"{FS}/WatchDir", message, connect_timeout_ms="15000") as stream:
            for event in stream:
                ((kind, value),) = event.items()
                self.kinds.append(kind)
                if kind == "start":
                    self._armed.set()
                elif kind == "filesystem":
                    self.events.append(value)
                    if value["name"].endswith("stop"):
                        return

    def seen(self) -> list[tuple[str, str]]:
        return [(e["name"], e["type"]) for e in self.events if not e["name"].endswith("stop")]

    def finish(self, sandbox, folder) -> list[tuple[str, str]]:
        """Writes a last file and returns what came before it."""
        sandbox.commands.run(f"touch {folder}/stop")
        self._thread.join(10)
        assert not self._thread.is_alive(), f"the last event never came: {self.events}"
        return self.seen()


def upload(name: str) -> list[tuple[str, str]]:
    return [(name, C), (name, M), (name, W)]


def test_an_upload_is_exactly_three_events(envd, sandbox, folder):
    watch = Watch(envd, folder)
    sandbox.files.write(f"{folder}/test.txt", "Hello")
    assert watch.finish(sandbox, folder) == upload("test.txt")
    assert watch.kinds[0] == "start"


def test_an_octet_stream_upload_is_the_same_three(envd, sandbox, folder):
    watch = Watch(envd, folder)
    sandbox.files.write(f"{folder}/test.txt", "Hello", use_octet_stream=True)
    assert watch.finish(sandbox, folder) == upload("test.txt")


def test_a_recursive_watch_names_the_relative_path(envd, sandbox, folder):
    sandbox.files.make_dir(f"{folder}/nested")
    watch = Watch(envd, folder, recursive=True)
    sandbox.files.write(f"{folder}/nested/file", "Hello")
    assert watch.finish(sandbox, folder) == upload("nested/file")


def test_a_recursive_watch_follows_new_directories(envd, sandbox, folder):
    watch = Watch(envd, folder, recursive=True)
    sandbox.files.make_dir(f"{folder}/new")
    until(lambda: ("new", C) in watch.seen(), "the directory's event")

    def written():
        sandbox.commands.run(f"date > {folder}/new/file")
        return ("new/file", W) in watch.seen()

    until(written, "an event of the file in it")
    watch.finish(sandbox, folder)


def test_a_plain_watch_ignores_what_is_below(envd, sandbox, folder):
    sandbox.files.make_dir(f"{folder}/nested")
    watch = Watch(envd, folder)
    sandbox.files.write(f"{folder}/nested/file", "Hello")
    assert not [n for n, _ in watch.finish(sandbox, folder) if "file" in n]


def test_entries_come_with_what_still_exists(envd, sandbox, folder):
    watch = Watch(envd, folder, includeEntry=True)
    sandbox.files.write(f"{folder}/f", "four")
    sandbox.files.remove(f"{folder}/f")
    watch.finish(sandbox, folder)
    created = next(e for e in watch.events if e["type"] == C)
    removed = next(e for e in watch.events if e["type"] == R)
    assert created["name"] == removed["name"] == "f"
    assert "entry" not in removed
    for event in watch.events:
        if "entry" in event:
            assert event["entry"]["path"] == f"{folder}/{event['name']}"


def test_a_rename_is_two_events(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/old", "")
    watch = Watch(envd, folder)
    sandbox.files.rename(f"{folder}/old", f"{folder}/new")
    assert watch.finish(sandbox, folder) == [("old", N), ("new", C)]


def test_modes_and_removals(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/f", "")
    watch = Watch(envd, folder)
    sandbox.commands.run(f"chmod 600 {folder}/f && rm {folder}/f")
    seen = watch.finish(sandbox, folder)
    assert seen[0] == ("f", M) and seen[-1] == ("f", R)


def test_what_can_not_be_watched(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/f", "")
    for path, code, text in (
        (f"{folder}/none", "not_found", "not found"),
        (f"{folder}/f", "invalid_argument", "not a directory"),
    ):
        with envd.stream(f"{FS}/WatchDir", {"path": path}) as stream:
            outcome = drain(stream)
        assert outcome.error["code"] == code and text in outcome.error["message"]
        status = {"not_found": 404, "invalid_argument": 400}[code]
        rpc_error(envd.unary(f"{FS}/CreateWatcher", {"path": path}), status, code, text)


def test_a_deadline_ends_the_watch(envd, folder):
    with envd.stream(f"{FS}/WatchDir", {"path": folder}, connect_timeout_ms="300") as stream:
        assert drain_watch(stream)["error"]["code"] == "deadline_exceeded"


def drain_watch(stream) -> dict:
    for _ in stream:
        pass
    return stream.trailer


def test_a_polled_watcher(envd, sandbox, folder):
    made = envd.unary(f"{FS}/CreateWatcher", {"path": folder}).json()
    assert re.fullmatch(r"w[a-z0-9]{20}", made["watcherId"])
    selector = {"watcherId": made["watcherId"]}
    assert envd.unary(f"{FS}/GetWatcherEvents", selector).json() == {}
    sandbox.files.write(f"{folder}/f", "x")
    seen: list = []

    def three():
        seen.extend(envd.unary(f"{FS}/GetWatcherEvents", selector).json().get("events", []))
        return len(seen) >= 3

    until(three, "the three events")
    assert [(e["name"], e["type"]) for e in seen] == upload("f")
    assert envd.unary(f"{FS}/GetWatcherEvents", selector).json() == {}
    assert envd.unary(f"{FS}/RemoveWatcher", selector).json() == {}
    message = f"watcher with id {made['watcherId']} not found"
    for call in ("GetWatcherEvents", "RemoveWatcher"):
        rpc_error(envd.unary(f"{FS}/{call}", selector), 404, "not_found", message)


def test_the_sdk_polls(sandbox, folder):
    handle = sandbox.files.watch_dir(folder, include_entry=True)
    sandbox.files.write(f"{folder}/f", "x")
    seen = []
    until(lambda: seen.extend(handle.get_new_events()) or len(seen) >= 3, "the three events")
    assert [e.type for e in seen] == [
        FilesystemEventType.CREATE,
        FilesystemEventType.CHMOD,
        FilesystemEventType.WRITE,
    ]
    assert seen[0].entry.path == f"{folder}/f"
    handle.stop()
    with pytest.raises(SandboxException):
        handle.get_new_events()
    with pytest.raises(NotFoundException):
        handle.stop()
    with pytest.raises(NotFoundException):
        sandbox.files.watch_dir(f"{folder}/none")
