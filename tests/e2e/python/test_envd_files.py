"""The file routes: uploads, downloads, negotiation, compose."""

import concurrent.futures
import gzip
import io
import os

import pytest
from e2b import FileNotFoundException, InvalidArgumentException

from support.api import exactly, refused

OCTET = {"content-type": "application/octet-stream"}


def put(envd, path: str, data: bytes, headers=None, **query):
    headers = {**OCTET, **(headers or {})}
    return envd.http.post("/files", params={"path": path, **query}, content=data, headers=headers)


def get(envd, path: str, headers=None, **query):
    return envd.http.get("/files", params={"path": path, **query}, headers=headers or {})


def test_an_octet_stream_upload(envd):
    answer = put(envd, "a.txt", b"raw")
    assert answer.status_code == 200
    assert answer.json() == [{"path": "/home/user/a.txt", "name": "a.txt", "type": "file"}]
    assert get(envd, "a.txt").content == b"raw"


def test_parts_keep_their_directories(envd, folder, unique):
    files = [("file", (f"{unique}/x", b"1")), ("file", (f"{folder}/y", b"2"))]
    answer = envd.http.post("/files", files=files)
    assert answer.json() == [
        {"path": f"/home/user/{unique}/x", "name": "x", "type": "file"},
        {"path": f"{folder}/y", "name": "y", "type": "file"},
    ]
    assert get(envd, f"{unique}/x").content == b"1"


def test_a_part_without_file_name_goes_to_the_path(envd, folder):
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nplain\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = envd.http.post("/files", params={"path": f"{folder}/p"}, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert get(envd, f"{folder}/p").content == b"plain"
    message = "filename not found in Content-Disposition header"
    refused(envd.http.post("/files", content=body, headers=headers), 400, message)


def test_no_file_part_is_an_empty_answer(envd):
    answer = envd.http.post("/files", files={"other": ("x", b"x")})
    assert answer.status_code == 200 and answer.json() == []


def test_two_parts_for_one_path(envd, folder):
    files = [("file", (f"{folder}/same", b"1")), ("file", (f"{folder}/same", b"2"))]
    message = "you cannot upload multiple files to the same path"
    refused(envd.http.post("/files", files=files), 400, message)
    assert get(envd, f"{folder}/same").content == b"1"


def test_bad_targets(envd, sandbox, folder):
    exactly(put(envd, folder, b"x"), 400, f"path is a directory: {folder}")
    sandbox.files.write(f"{folder}/f", "")
    refused(put(envd, f"{folder}/f/below", b"x"), 500, "path is a file")
    refused(put(envd, "~bob/x", b"x"), 400, "error resolving path")


def test_bad_content_types(envd):
    message = "path query parameter is required for raw body upload"
    exactly(envd.http.post("/files", content=b"x", headers=OCTET), 400, message)
    answer = envd.http.post("/files?path=x", content=b"x", headers={"content-type": "text/plain"})
    expected = "expected multipart/form-data or application/octet-stream"
    exactly(answer, 400, f"unsupported content type: text/plain, {expected}")


def test_compressed_uploads(envd, folder):
    packed = {"content-encoding": "gzip"}
    assert put(envd, f"{folder}/g", gzip.compress(b"raw"), packed).status_code == 200
    assert get(envd, f"{folder}/g").content == b"raw"
    form = (
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="{folder}/m"\r\n\r\n'
        "multi\r\n--b--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=b", **packed}
    answer = envd.http.post("/files", content=gzip.compress(form.encode()), headers=headers)
    assert answer.status_code == 200, answer.text
    assert get(envd, f"{folder}/m").content == b"multi"
    for body, headers in ((b"x", {"content-encoding": "br"}), (b"no gzip", packed)):
        refused(put(envd, f"{folder}/b", body, headers), 400, "error decompressing request body")


def test_overwriting_changes_the_owner_not_the_mode(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/f", "old and longer", user="root")
    sandbox.commands.run(f"chmod 600 {folder}/f", user="root")
    sandbox.files.write(f"{folder}/f", "new", user="user")
    info = sandbox.files.get_info(f"{folder}/f")
    assert info.owner == "user" and info.mode == 0o600 and info.size == 3


def test_an_upload_follows_a_link(sandbox, folder):
    sandbox.files.write(f"{folder}/target", "old")
    sandbox.commands.run(f"ln -s target {folder}/link")
    sandbox.files.write(f"{folder}/link", "new")
    assert sandbox.files.read(f"{folder}/target") == "new"


def test_four_uploads_race_into_one_new_directory(envd, folder):
    def one(number: int):
        return put(envd, f"{folder}/new/deep/{number}", b"%d" % number)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert [a.status_code for a in pool.map(one, range(4))] == [200] * 4
    assert [get(envd, f"{folder}/new/deep/{n}").content for n in range(4)] == [
        b"0",
        b"1",
        b"2",
        b"3",
    ]


def test_metadata_headers(envd, folder):
    answer = put(envd, f"{folder}/f", b"x", {"X-Metadata-Author": "me"})
    assert answer.json()[0]["metadata"] == {"author": "me"}
    assert set(answer.json()[0]) == {"path", "name", "type", "metadata"}
    assert "metadata" not in put(envd, f"{folder}/f", b"x").json()[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Metadata-A": "a" * 2100, "X-Metadata-B": "b" * 2100},
        {"X-Metadata-A": "ü".encode()},
    ],
)
def test_metadata_out_of_bounds(envd, folder, headers):
    answer = refused(put(envd, f"{folder}/f", b"x", headers), 400)
    assert answer["message"].startswith("invalid metadata:")


def test_gzip_is_the_negotiated_download(envd, sandbox, folder):
    sandbox.files.write(f"{folder}/f.txt", "a" * 10000)
    query = {"path": f"{folder}/f.txt"}
    with envd.http.stream(
        "GET", "/files", params=query, headers={"accept-encoding": "gzip, deflate"}
    ) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in answer.headers["vary"].lower()
        assert "content-length" not in answer.headers
        assert gzip.decompress(b"".join(answer.iter_raw())) == b"a" * 10000


def test_the_plain_download(envd, folder):
    put(envd, f"{folder}/f.json", b"{}")
    answer = get(envd, f"{folder}/f.json")
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-length"] == "2"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["last-modified"]
    since = {"if-modified-since": answer.headers["last-modified"]}
    assert get(envd, f"{folder}/f.json", since).status_code == 304


def test_ranges(envd, folder):
    put(envd, f"{folder}/f", b"0123456789")
    part = get(envd, f"{folder}/f", {"range": "bytes=0-3", "accept-encoding": "gzip"})
    assert part.status_code == 206 and part.content == b"0123"
    assert part.headers["content-range"] == "bytes 0-3/10"
    assert "content-encoding" not in part.headers
    assert get(envd, f"{folder}/f", {"range": "bytes=-2"}).content == b"89"
    assert get(envd, f"{folder}/f", {"range": "bytes=99-"}).status_code == 416


def test_an_encoding_that_is_not_offered(envd, folder):
    put(envd, f"{folder}/f", b"x")
    answer = get(envd, f"{folder}/f", {"accept-encoding": "identity;q=0, br"})
    refused(answer, 406, "no acceptable encoding found, supported: [gzip]")
    answer = get(
        envd, f"{folder}/f", {"accept-encoding": "gzip, identity;q=0", "range": "bytes=0-0"}
    )
    refused(answer, 406, "identity encoding not acceptable for Range or conditional request")


def test_an_empty_file(envd, sandbox, folder):
    put(envd, f"{folder}/e", b"")
    answer = get(envd, f"{folder}/e")
    assert answer.status_code == 200 and answer.headers["content-length"] == "0"
    assert sandbox.files.read(f"{folder}/e") == ""


@pytest.mark.parametrize(
    "name,expected",
    [
        ("plain.txt", "inline; filename=plain.txt"),
        ("a b.txt", 'inline; filename="a b.txt"'),
        ("é.txt", "inline; filename*=utf-8''%C3%A9.txt"),
    ],
)
def test_the_disposition(envd, folder, name, expected):
    put(envd, f"{folder}/{name}", b"x")
    assert get(envd, f"{folder}/{name}").headers["content-disposition"] == expected


def test_what_can_not_be_downloaded(envd, sandbox, folder):
    exactly(get(envd, folder), 400, f"path '{folder}' is a directory")
    exactly(get(envd, "none"), 404, "path '/home/user/none' does not exist")
    refused(get(envd, "~bob/x"), 400, "error expanding and resolving path")
    with pytest.raises(FileNotFoundException):
        sandbox.files.read("none")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.read(folder)


def test_a_file_of_the_kernel_is_read(envd):
    assert b"Linux" in get(envd, "/proc/version").content


class TestCompose:
    """Joining uploaded pieces."""

    def test_pieces_become_one_file(self, envd, sandbox, folder):
        sources = [f"{folder}/{n}" for n in range(3)]
        for n, source in enumerate(sources):
            put(envd, source, b"%d" % n * 1000)
        body = {"source_paths": sources, "destination": f"{folder}/new/whole", "username": "user"}
        answer = envd.http.post("/files/compose", json=body)
        assert answer.json() == {"path": f"{folder}/new/whole", "name": "whole", "type": "file"}
        assert sandbox.files.read(f"{folder}/new/whole") == "0" * 1000 + "1" * 1000 + "2" * 1000
        assert sandbox.files.get_info(f"{folder}/new/whole").owner == "user"
        assert not any(sandbox.files.exists(source) for source in sources)

    def test_a_missing_piece_changes_nothing(self, envd, sandbox, folder):
        put(envd, f"{folder}/a", b"a")
        put(envd, f"{folder}/dest", b"before")
        body = {"source_paths": [f"{folder}/a", f"{folder}/none"], "destination": f"{folder}/dest"}
        answer = envd.http.post("/files/compose", json=body)
        refused(answer, 404, f"source file not found: {folder}/none")
        assert sandbox.files.read(f"{folder}/a") == "a"
        assert sandbox.files.read(f"{folder}/dest") == "before"

    @pytest.mark.parametrize(
        "body,message",
        [
            ({"source_paths": [], "destination": "x"}, "source_paths must not be empty"),
            ({"source_paths": ["a"], "destination": ""}, "destination is required"),
            (
                {"source_paths": ["same"], "destination": "same"},
                "cannot be the same as destination",
            ),
        ],
    )
    def test_refusals(self, envd, body, message):
        put(envd, "same", b"x")
        refused(envd.http.post("/files/compose", json=body), 400, message)


def test_the_sdk_writes_what_it_reads(sandbox, folder):
    data = os.urandom(300_000)
    for number, options in enumerate(({}, {"use_octet_stream": True}, {"gzip": True})):
        info = sandbox.files.write(f"{folder}/{number}", data, **options)
        assert info.path == f"{folder}/{number}" and info.name == str(number)
        assert bytes(sandbox.files.read(f"{folder}/{number}", format="bytes")) == data
    sandbox.files.write(f"{folder}/io", io.BytesIO(data))
    chunks = sandbox.files.read(f"{folder}/io", format="stream")
    assert b"".join(chunks) == data
    assert sandbox.files.read(f"{folder}/io", format="bytes", gzip=True) == data


def test_the_sdk_writes_many(sandbox, folder):
    entries = [{"path": f"{folder}/many/{n}", "data": f"{n}"} for n in range(20)]
    assert [info.path for info in sandbox.files.write_files(entries)] == [
        e["path"] for e in entries
    ]
    assert {e.name for e in sandbox.files.list(f"{folder}/many")} == {str(n) for n in range(20)}
