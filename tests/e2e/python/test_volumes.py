"""Volumes with the official SDK: made, mounted, shared, read and written from outside."""

import os
import uuid

import httpx
import pytest

from e2b import AsyncSandbox, AsyncVolume, Sandbox, Volume
from e2b.exceptions import AuthenticationException

from support.env import API_KEY, API_URL

volume_exceptions = pytest.importorskip("e2b.exceptions")
VolumeException = volume_exceptions.VolumeException
PathNotFound = volume_exceptions.VolumePathNotFoundException


@pytest.fixture
def volume():
    made = Volume.create(f"v-{uuid.uuid4().hex[:12]}")
    yield made
    Volume.destroy(made.volume_id)


def test_it_is_made_listed_found_and_destroyed():
    name = f"v-{uuid.uuid4().hex[:12]}"
    made = Volume.create(name)
    assert made.volume_id in [one.volume_id for one in Volume.list()]
    with pytest.raises(VolumeException, match=f"Volume with name '{name}' already exists"):
        Volume.create(name)
    with pytest.raises(VolumeException, match="Invalid volume name"):
        Volume.create("a b")
    again = Volume.connect(made.volume_id)
    assert again.name == name
    made.write_file("/x", "y")
    assert again.read_file("/x") == "y"
    assert Volume.destroy(made.volume_id) is True
    assert Volume.destroy(made.volume_id) is False
    with pytest.raises(AuthenticationException):
        made.read_file("/x")


def test_files_of_every_kind(volume):
    entry = volume.write_file("/a.txt", "one", uid=1000, gid=1000, mode=0o600)
    assert (entry.name, entry.path, entry.size) == ("a.txt", "/a.txt", 3)
    assert (entry.uid, entry.gid, entry.mode) == (1000, 1000, 0o600)
    with pytest.raises(VolumeException):
        volume.write_file("/a.txt", "two")
    volume.write_file("/a.txt", "two", force=True)
    assert volume.read_file("/a.txt") == "two"
    assert volume.get_info("/a.txt").mode == 0o644
    with pytest.raises(PathNotFound):
        volume.write_file("/none/a.txt", "x")
    volume.write_file("/empty", "")
    assert volume.read_file("/empty") == ""
    assert volume.exists("/empty") and not volume.exists("/missing")
    volume.update_metadata("/empty", mode=0o640)
    assert volume.get_info("/empty").mode == 0o640
    volume.remove("/empty")
    with pytest.raises(PathNotFound):
        volume.remove("/empty")
    with pytest.raises(PathNotFound):
        volume.read_file("/../../etc/passwd")


def test_directories(volume):
    volume.make_dir("/a/b/c", force=True)
    volume.make_dir("/a/b/c", force=True)
    with pytest.raises(VolumeException):
        volume.make_dir("/a/b/c")
    with pytest.raises(PathNotFound):
        volume.make_dir("/x/y")
    volume.write_file("/a/f", "x")
    assert [entry.path for entry in volume.list("/")] == ["/a"]
    assert [entry.path for entry in volume.list("/a", depth=2)] == ["/a/b", "/a/b/c", "/a/f"]
    with pytest.raises(PathNotFound):
        volume.list("/a/f")
    volume.remove("/a")
    assert volume.list("/") == []


def test_a_large_file_streams_both_ways(volume, tmp_path):
    source = tmp_path / "large"
    with source.open("wb") as file:
        for _ in range(24):
            file.write(os.urandom(1 << 20))
    with source.open("rb") as file:
        entry = volume.write_file("/large", file)
    assert entry.size == 24 << 20
    assert bytes(volume.read_file("/large", format="bytes")) == source.read_bytes()
    streamed = b"".join(volume.read_file("/large", format="stream"))
    assert streamed == source.read_bytes()


def test_sandboxes_share_it_at_once_and_in_turn(volume):
    volume.write_file("/given", "given", uid=1000, gid=1000)
    first = Sandbox.create(volume_mounts={"/mnt/v": volume}, timeout=120)
    second = Sandbox.create(volume_mounts={"/home/user/deep/v": volume.name}, timeout=120)
    try:
        assert first.files.read("/mnt/v/given") == "given"
        first.commands.run("echo more >> /mnt/v/given; echo made > /mnt/v/made")
        assert second.files.read("/home/user/deep/v/made") == "made\n"
        info = volume.get_info("/made")
        assert (info.uid, info.size) == (1000, 5)
        first.kill()
        assert volume.read_file("/given") == "givenmore\n"
        third = Sandbox.create(volume_mounts={"/v": volume}, timeout=120)
        try:
            assert third.files.read("/v/made") == "made\n"
        finally:
            third.kill()
    finally:
        first.kill()
        second.kill()


def test_links_of_a_sandbox_lead_nowhere(volume):
    sandbox = Sandbox.create(volume_mounts={"/v": volume}, timeout=120)
    try:
        sandbox.commands.run(
            "cd /v && ln -s /etc/passwd a && ln -s ../../../../etc/passwd b"
            " && ln -s / c && ln -s /proc/self/root d && mkfifo pipe"
        )
        for path in ["/a", "/b", "/c/etc/passwd", "/d/etc/passwd", "/pipe"]:
            with pytest.raises(PathNotFound):
                volume.read_file(path)
        assert volume.get_info("/a").target == "/etc/passwd"
        volume.write_file("/b", "mine", force=True)
        assert sandbox.files.read("/v/b") == "mine"
        volume.remove("/c")
    finally:
        sandbox.kill()


def test_bad_mounts_are_told_one_by_one(volume):
    headers = {"X-API-Key": API_KEY}
    mounts = [
        {"name": "nobody", "path": "/a"},
        {"name": volume.name, "path": ""},
        {"name": volume.name, "path": "rel"},
        {"name": volume.name, "path": "/a/../b"},
        {"name": volume.name, "path": "/p"},
        {"name": volume.name, "path": "/p"},
    ]
    body = {"templateID": "base", "volumeMounts": mounts}
    answer = httpx.post(f"{API_URL}/v2/sandboxes", json=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        "invalid mounts:"
        "\n\t- volume mount #0: volume 'nobody' not found"
        "\n\t- volume mount #1: path cannot be empty"
        "\n\t- volume mount #2: path must be absolute"
        "\n\t- volume mount #3: path must not contain any '.' or '..' components"
        "\n\t- volume mount #5: path '/p' is already used"
    )


def test_read_only_mounts_and_the_echo(volume):
    volume.write_file("/f", "x")
    headers = {"X-API-Key": API_KEY}
    mounts = [{"name": volume.name, "path": "/v", "readOnly": True}]
    body = {"templateID": "base", "timeout": 120, "volumeMounts": mounts}
    answer = httpx.post(f"{API_URL}/v2/sandboxes", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    sandbox = Sandbox.connect(answer.json()["sandboxID"])
    try:
        result = sandbox.commands.run("cat /v/f; sudo touch /v/g 2>&1 || true")
        assert result.stdout.startswith("x") and "Read-only file system" in result.stdout
        detail = httpx.get(f"{API_URL}/sandboxes/{sandbox.sandbox_id}", headers=headers).json()
        assert detail["volumeMounts"] == mounts
    finally:
        sandbox.kill()


def test_a_token_is_for_one_volume(volume):
    other = Volume.create(f"v-{uuid.uuid4().hex[:12]}")
    try:
        url = f"{API_URL}/volumecontent/{volume.volume_id}/path?path=/"
        for token in [other.token, "x", volume.token[:-2]]:
            answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401
            assert answer.json() == {"code": "unauthorized", "message": "Unauthorized"}
        assert httpx.get(url).status_code == 401
    finally:
        Volume.destroy(other.volume_id)


async def test_the_async_client_does_the_same():
    volume = await AsyncVolume.create(f"v-{uuid.uuid4().hex[:12]}")
    try:
        await volume.make_dir("/d")
        await volume.write_file("/d/f", "text")
        sandbox = await AsyncSandbox.create(volume_mounts={"/v": volume}, timeout=120)
        try:
            assert await sandbox.files.read("/v/d/f") == "text"
        finally:
            await sandbox.kill()
        assert [entry.path for entry in await volume.list("/d")] == ["/d/f"]
    finally:
        assert await AsyncVolume.destroy(volume.volume_id)
