"""Another build of the server takes over the data directory and the sandboxes of the first."""

import os
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from support.env import optional
from support.server import Server
from support.wait import until

WARREN = optional("WARREN_BIN")

pytestmark = [
    pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program"),
    pytest.mark.timeout(180),
]


def other_build(place: Path) -> None:
    """A program that does the same and carries other programs for its sandboxes: what the
    compiler notes of itself in them is changed."""
    program = Path(WARREN).read_bytes()
    changed = program.replace(b"rustc version", b"rustc Version")
    assert changed != program
    place.write_bytes(changed)
    place.chmod(0o755)


@pytest.fixture
def server(tmp_path):
    """A server whose program is a file of its own, as an installed one is."""
    server = Server(tmp_path)
    server.binary = tmp_path / "bin/warren"
    server.binary.parent.mkdir()
    try:
        os.link(WARREN, server.binary)
    except OSError:
        shutil.copy(WARREN, server.binary)
    yield server
    server.clear()
    shutil.rmtree(server.binary.parent)


def agents(server: Server) -> list[str]:
    return [path.name for path in (server.data / "guest").glob("envd-*")]


def test_sandboxes_go_on_under_the_next_build(server, tmp_path):
    server.start("--warm", "1")
    made = server.create(metadata={"k": "v"}, envs={"E": "1"})
    count = "n=0; while sleep 0.1; do echo $((n+=1)); done"
    counting = made.commands.run(count, background=True, timeout=0)
    paused = server.create()
    paused.commands.run("echo kept > /dev/shm/kept")
    assert paused.pause()
    seen: list[int] = []

    def follow(handle):
        try:
            for out, _, _ in handle:
                if out:
                    seen.extend(int(number) for number in out.split())
        except Exception:  # noqa: BLE001 - the stream ends with the server
            pass

    follower = threading.Thread(target=follow, args=(counting,), daemon=True)
    follower.start()
    until(lambda: len(seen) > 3, "the stream runs", 30)

    # Installed over the running one, as packages do it.
    other_build(tmp_path / "bin/warren.new")
    (tmp_path / "bin/warren.new").rename(server.binary)
    assert len(agents(server)) == 1
    # The old one goes on until it is told to stop, with what it starts later, too.
    assert server.create().commands.run("echo old").stdout == "old\n"
    assert server.stop() == 0
    follower.join(60)
    server.start("--warm", "1")
    assert len(agents(server)) == 2

    joined = made.commands.connect(counting.pid)
    rest = next(int(out.split()[0]) for out, _, _ in joined if out)
    assert rest > seen[-1]
    assert made.commands.run("echo $E").stdout == "1\n"
    joined.kill()
    paused.connect()
    assert paused.files.read("/dev/shm/kept") == "kept\n"
    assert server.create().commands.run("echo new").stdout == "new\n"
    assert len(server.listed()) == 4


def test_an_older_build_refuses_the_database_of_a_newer_one(server):
    server.start("--warm", "0")
    sandbox = server.create()
    assert server.stop() == 0
    database = sqlite3.connect(server.data / "warren.db")
    with database:
        database.execute(
            "INSERT INTO _sqlx_migrations SELECT 99990101, 'later', installed_on, 1, checksum, 0"
            " FROM _sqlx_migrations LIMIT 1"
        )
    words = [server.binary, "up", "--data-dir", server.data, "--listen", f"127.0.0.1:{server.port}"]
    words += ["--layers-dir", server.layers] if server.layers else []
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is of another version of Warren (schema 99990101)" in done.stderr
    assert "hint: " in done.stderr
    # Nothing was changed: the newer build finds all as it was.
    with database:
        database.execute("DELETE FROM _sqlx_migrations WHERE version = 99990101")
    database.close()
    server.start("--warm", "0")
    assert server.listed() == {sandbox.sandbox_id}
    assert sandbox.commands.run("echo on").stdout == "on\n"
