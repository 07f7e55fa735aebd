"""The filesystem RPCs."""

import pytest
from e2b import FileNotFoundException, FileType, InvalidArgumentException

from support.api import moment, rpc_error
from support.connect import basic

FS = "filesystem.Filesystem"


def entry(answer) -> dict:
    assert answer.status_code == 200, answer.text
    return answer.json()["entry"]


def names(envd, path: str, depth: int = 1) -> list[str]:
    answer = envd.unary(f"{FS}/ListDir", {"path": path, "depth": depth})
    assert answer.status_code == 200, answer.text
    return [
        item["path"].removeprefix(path).lstrip("/") for item in answer.json().get("entries", [])
    ]


def test_stat_of_an_uploaded_file(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/test.txt", "Hello, world!")
    stat = entry(envd.stat(f"{folder}/test.txt"))
    moment(stat.pop("modifiedTime"))
    assert stat == {
        "name": "test.txt",
        "path": f"{folder}/test.txt",
        "type": "FILE_TYPE_FILE",
        "size": "13",
        "mode": 0o644,
        "permissions": "-rw-r--r--",
        "owner": "user",
        "group": "user",
    }


def test_a_made_directory(envd, folder):
    made = entry(envd.unary(f"{FS}/MakeDir", {"path": f"{folder}/a/b"}))
    assert made["path"] == f"{folder}/a/b" and made["name"] == "b"
    for path in (f"{folder}/a", f"{folder}/a/b"):
        stat = entry(envd.stat(path))
        assert stat["type"] == "FILE_TYPE_DIRECTORY" and stat["mode"] == 0o755
        assert stat["permissions"] == "drwxr-xr-x" and stat["owner"] == "user"


def test_make_dir_on_what_exists(envd, sandbox, folder):
    answer = envd.unary(f"{FS}/MakeDir", {"path": folder})
    rpc_error(answer, 409, "already_exists", f"directory already exists: {folder}")
    assert sandbox.files.make_dir(folder) is False
    sandbox.files.write(f"{folder}/f", "")
    answer = envd.unary(f"{FS}/MakeDir", {"path": f"{folder}/f"})
    rpc_error(answer, 400, "invalid_argument", "path already exists but it is not a directory")
    answer = envd.unary(f"{FS}/MakeDir", {"path": f"{folder}/f/below"})
    assert answer.is_error and "path is a file" in answer.text


def test_depths_of_a_listing(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/test-dir/sub-dir-1/file.txt", "x")
    sandbox.files.make_dir(f"{folder}/test-dir/sub-dir-2")
    tree = ["test-dir", "test-dir/sub-dir-1", "test-dir/sub-dir-1/file.txt", "test-dir/sub-dir-2"]
    assert names(envd, folder, 0) == names(envd, folder, 1) == tree[:1]
    assert names(envd, folder, 2) == [tree[0], tree[1], tree[3]]
    assert names(envd, folder, 3) == tree
    assert len(sandbox.files.list(folder, depth=3)) == 4
    with pytest.raises(InvalidArgumentException):
        sandbox.files.list(folder, depth=0)


def test_relative_paths_are_the_homes(envd, sandbox):
    sandbox.files.write("relative/f", "x")
    answer = envd.unary(f"{FS}/ListDir", {"path": "relative"})
    assert answer.json()["entries"][0]["path"] == "/home/user/relative/f"
    paths = {
        entry(envd.stat(p))["path"]
        for p in ("relative/f", "~/relative/f", "relative/../relative/f")
    }
    assert paths == {"/home/user/relative/f"}
    rooted = entry(envd.stat("~", **basic("root")))
    assert rooted["path"] == "/root"
    rpc_error(envd.stat("~root/a"), 400, "invalid_argument")


def test_an_absolute_path_is_kept_as_given(envd):
    assert entry(envd.stat("/tmp/../tmp//"))["path"] == "/tmp/../tmp//"


def test_listing_a_file_or_nothing(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/f", "")
    answer = envd.unary(f"{FS}/ListDir", {"path": f"{folder}/f"})
    rpc_error(answer, 400, "invalid_argument", f"path is not a directory: {folder}/f")
    rpc_error(envd.unary(f"{FS}/ListDir", {"path": f"{folder}/none"}), 404, "not_found")
    with pytest.raises(FileNotFoundException):
        sandbox.files.list(f"{folder}/none")


def test_a_link_to_a_directory(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/d/f", "")
    sandbox.commands.run(f"ln -s d {folder}/l")
    assert names(envd, f"{folder}/l") == ["f"]
    assert names(envd, folder, 3) == ["d", "d/f", "l"]


def test_links(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/f", "four")
    sandbox.commands.run(f"cd {folder} && ln -s f good && ln -s none broken && ln -s loop loop")
    good = entry(envd.stat(f"{folder}/good"))
    assert good["type"] == "FILE_TYPE_FILE" and good["isSymlink"] is True
    assert good["symlinkTarget"] == f"{folder}/f" and good["permissions"] == "Lrwxrwxrwx"
    assert good["size"] == "1"
    for name in ("broken", "loop"):
        bad = entry(envd.stat(f"{folder}/{name}"))
        assert bad.get("type", "FILE_TYPE_UNSPECIFIED") == "FILE_TYPE_UNSPECIFIED"
        assert bad["symlinkTarget"] == f"{folder}/{name}" and "mode" not in bad
    answer = envd.unary(f"{FS}/ListDir", {"path": f"{folder}/loop"})
    rpc_error(answer, 400, "failed_precondition", "cyclic symlink")
    assert sandbox.files.get_info(f"{folder}/good").type == FileType.SYMLINK


@pytest.mark.parametrize(
    "make,permissions",
    [
        ("mkdir t && chmod 1777 t", "dtrwxrwxrwx"),
        ("touch t && chmod 4755 t", "urwxr-xr-x"),
        ("mkfifo -m 600 t", "prw-------"),
        ("touch t && chmod 000 t", "----------"),
    ],
)
def test_special_modes(envd, sandbox, folder, make, permissions):
    sandbox.commands.run(f"cd {folder} && {make}")
    assert entry(envd.stat(f"{folder}/t"))["permissions"] == permissions


def test_a_device(envd):
    null = entry(envd.stat("/dev/null"))
    assert null["permissions"] == "Dcrw-rw-rw-"
    assert null.get("type", "FILE_TYPE_UNSPECIFIED") == "FILE_TYPE_UNSPECIFIED"


def test_move_replaces_and_keeps(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/a", "new", user="root", metadata={"k": "v"})
    sandbox.files.write(f"{folder}/deep/b", "old")
    move = {"source": f"{folder}/a", "destination": f"{folder}/deep/b"}
    moved = entry(envd.unary(f"{FS}/Move", move))
    assert moved["path"] == f"{folder}/deep/b"
    assert moved["owner"] == "root" and moved["metadata"] == {"k": "v"}
    assert sandbox.files.read(f"{folder}/deep/b") == "new"
    assert not sandbox.files.exists(f"{folder}/a")
    renamed = sandbox.files.rename(f"{folder}/deep/b", f"{folder}/made/on/the/way")
    assert renamed.path == f"{folder}/made/on/the/way"


def test_move_of_nothing(envd, sandbox, folder):
    move = {"source": f"{folder}/none", "destination": f"{folder}/x"}
    rpc_error(envd.unary(f"{FS}/Move", move), 404, "not_found", "source file not found")
    with pytest.raises(FileNotFoundException):
        sandbox.files.rename(f"{folder}/none", f"{folder}/x")


def test_move_onto_a_full_directory_fails(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/full/f", "")
    sandbox.files.make_dir(f"{folder}/d")
    move = {"source": f"{folder}/d", "destination": f"{folder}/full"}
    rpc_error(envd.unary(f"{FS}/Move", move), 500, "internal")


def test_remove(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/d/e/f", "")
    sandbox.commands.run(f"ln -s /tmp {folder}/d/link && touch /tmp/kept")
    for _ in range(2):
        assert envd.unary(f"{FS}/Remove", {"path": f"{folder}/d"}).json() == {}
    assert not sandbox.files.exists(f"{folder}/d")
    assert sandbox.files.exists("/tmp/kept")


def test_stat_of_nothing(envd, sandbox, folder):
    rpc_error(envd.stat(f"{folder}/none"), 404, "not_found", "file not found")
    assert sandbox.files.exists(f"{folder}/none") is False
    with pytest.raises(FileNotFoundException):
        sandbox.files.get_info(f"{folder}/none")


def test_metadata_set_inside_is_seen(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/f", "", metadata={"Author": "me", "x-y": "a b"})
    assert entry(envd.stat(f"{folder}/f"))["metadata"] == {"author": "me", "x-y": "a b"}
    script = f"import os; os.setxattr('{folder}/f', 'user.e2b.inner', b'1')"
    sandbox.commands.run(f'python3 -c "{script}"')
    assert sandbox.files.get_info(f"{folder}/f").metadata["inner"] == "1"
    sandbox.files.write(f"{folder}/f", "")
    assert "metadata" not in entry(envd.stat(f"{folder}/f"))


def test_names_of_every_kind(sandbox, folder):
    odd = ["a b", "ü✓", "quote'\"", "-dash", "new\nline", "%41", "x" * 255]
    for name in odd:
        sandbox.files.write(f"{folder}/{name}", name, use_octet_stream=True)
    assert sorted(e.name for e in sandbox.files.list(folder)) == sorted(odd)
    for name in odd:
        assert sandbox.files.read(f"{folder}/{name}") == name
