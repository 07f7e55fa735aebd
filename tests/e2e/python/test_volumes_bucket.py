"""Volumes that are kept in a bucket: they outlive the machine, and nothing of them is left
or lost when the server dies.

Every test runs a server of its own, so nothing else may run beside it.
"""

import shutil
import signal
import subprocess

import pytest
from e2b import Sandbox, Volume

from support.s3 import Bucket
from support.server import Server
from support.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]

FLAGS = ("--warm", "0", "--slots", "2")


@pytest.fixture
def bucket():
    made = Bucket()
    yield made
    made.close()


@pytest.fixture
def keys(tmp_path):
    """A file of credentials; what is in it does not matter here."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKEXAMPLE\naws_secret_access_key = example\n")
    return ["--volume-s3-credentials-file", str(file)]


@pytest.fixture
def server(tmp_path, bucket, keys):
    server = Server(tmp_path / "one")
    server.flags = [*FLAGS, *bucket.flags, *keys]
    server.data.parent.mkdir()
    yield server
    if server.process.poll() is None:
        server.crash()
    server.start(*server.flags, "--end-sandboxes")
    server.stop()


def options(server: Server) -> dict[str, str]:
    return {"api_key": server.key, "api_url": server.url}


def manifests(bucket: Bucket) -> dict[str, bytes]:
    return {key: body for key, body in bucket.objects.items() if key.endswith("/manifest")}


def test_a_volume_outlives_the_machine(server, bucket, keys, tmp_path):
    server.start(*server.flags)
    volume = Volume.create("kept", **options(server))
    volume.write_file("/from-outside", "one", **options(server))
    sandbox = server.create(volume_mounts={"/mnt/kept": volume})
    sandbox.commands.run("echo two > /mnt/kept/from-inside; sync")
    before = manifests(bucket)
    until(lambda: manifests(bucket) != before, "the volume is written back", 20, 0.2)
    sandbox.commands.run("echo three > /mnt/kept/last")
    sandbox.kill()
    # What is written last is in the bucket when the server has stopped.
    assert server.stop() == 0

    # Another machine has the database and the keys, and no volume.
    other = Server(tmp_path / "other")
    other.data.mkdir(parents=True)
    for name in ("warren.db", "secrets.key", "api-key"):
        shutil.copy(server.data / name, other.data / name)
    shutil.copy(server.key_file, other.key_file)
    flags = [*FLAGS, *bucket.flags, *keys]
    other.start(*flags)
    try:
        with pytest.raises(Exception, match="kept by another server"):
            Volume.connect(volume.volume_id, **options(other)).read_file(
                "/last", **options(other)
            )
        with pytest.raises(Exception, match="Failed to place sandbox: .*kept by another server"):
            other.create(volume_mounts={"/mnt/kept": "kept"}, retries=0)
        assert other.stop() == 0
        other.start(*flags, "--volume-take-over")
        volume = Volume.connect(volume.volume_id, **options(other))
        assert volume.read_file("/from-outside", **options(other)) == "one"
        sandbox = other.create(volume_mounts={"/mnt/kept": "kept"})
        assert sandbox.commands.run("cat /mnt/kept/from-inside /mnt/kept/last").stdout == (
            "two\nthree\n"
        )
        sandbox.kill()
        assert Volume.destroy(volume.volume_id, **options(other)) is True
        until(lambda: not bucket.objects, "nothing is left in the bucket", 20, 0.2)
    finally:
        other.clear()


@pytest.mark.parametrize("step", ["volume.announced", "volume.made", "volume.attempted"])
def test_the_server_dies_while_it_makes_a_volume(server, bucket, step):
    server.start(*server.flags, abort_at=step)
    with pytest.raises(Exception):  # noqa: B017 - the server dies under it
        Volume.create("torn", **options(server))
    assert server.process.wait(30) == -signal.SIGABRT
    server.start(*server.flags)
    assert Volume.list(**options(server)) == []
    until(lambda: not bucket.objects, "nothing is left in the bucket", 20, 0.2)
    assert Volume.create("torn", **options(server)).name == "torn"


@pytest.mark.parametrize("step", ["volume.forgotten", "volume.unnamed", "volume.gone"])
def test_the_server_dies_while_it_deletes_a_volume(server, bucket, step):
    server.start(*server.flags)
    volume = Volume.create("torn", **options(server))
    volume.write_file("/note", "x" * 100_000, **options(server))
    server.crash()
    server.start(*server.flags, abort_at=step)
    with pytest.raises(Exception):  # noqa: B017 - the server dies under it
        Volume.destroy(volume.volume_id, **options(server))
    assert server.process.wait(30) == -signal.SIGABRT
    server.start(*server.flags)
    assert Volume.list(**options(server)) == []
    until(lambda: not bucket.objects, "nothing is left in the bucket", 20, 0.2)


def test_what_was_acknowledged_is_there_after_a_crash(server, bucket):
    server.start(*server.flags)
    volume = Volume.create("kept", **options(server))
    sandbox = server.create(volume_mounts={"/mnt/kept": volume})
    for number in range(3):
        volume.write_file(f"/{number}", str(number), **options(server))
        server.crash()
        server.start(*server.flags)
        # The sandbox has not noticed.
        sandbox = server.connect(sandbox.sandbox_id)
        shown = sandbox.commands.run(f"cat /mnt/kept/{number}; echo in > /mnt/kept/in-{number}")
        assert shown.stdout == str(number)
        assert volume.read_file(f"/in-{number}", **options(server)) == "in\n"
    before = manifests(bucket)
    until(lambda: manifests(bucket) != before, "the volume is written back", 20, 0.2)
    Sandbox.kill(sandbox.sandbox_id, **server.options)


def test_a_bucket_that_cant_be_reached_is_named(server, bucket):
    bucket.close()
    with pytest.raises(AssertionError, match="use the bucket disks at http://127.0.0.1"):
        server.start(*server.flags)
    # For the fixture's sake.
    server.flags = [*FLAGS]


def test_a_bucket_without_a_name_is_asked_for(tmp_path):
    binary = Server(tmp_path).binary
    told = subprocess.run(
        [binary, "up", "--data-dir", tmp_path / "data", "--volume-backend", "s3"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert told.returncode != 0 and "--volume-s3-bucket" in told.stderr
