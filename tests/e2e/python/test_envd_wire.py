"""The wire: codecs, frames, JSON mapping, deadlines, client streams."""

import base64
import json

import pytest

from support.api import rpc_error
from support.connect import END_STREAM, STREAM, bash, drain, envelope


def test_content_types_follow_the_codec(envd):
    answer = envd.unary("process.Process/List", {})
    assert answer.headers["content-type"] == "application/json"
    with envd.stream("process.Process/Start", bash("true")) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"] == STREAM
        outcome = drain(stream)
    assert outcome.flags[-1] == END_STREAM and outcome.trailer == {}
    assert set(outcome.flags[:-1]) == {0}


def test_a_stream_is_not_buffered_by_proxies(envd):
    with envd.stream("process.Process/Start", bash("true")) as stream:
        assert stream.response.headers["x-accel-buffering"] == "no"
        drain(stream)


def test_defaults_are_left_out(envd, sandbox, folder):
    assert envd.run("true").end == {"exited": True, "status": "exit status 0"}
    empty = envd.unary("filesystem.Filesystem/ListDir", {"path": folder, "depth": 1})
    assert empty.json() == {}
    sandbox.files.write(f"{folder}/13", "x" * 13)
    assert envd.stat(f"{folder}/13").json()["entry"]["size"] == "13"
    sandbox.files.write(f"{folder}/0", "")
    assert "size" not in envd.stat(f"{folder}/0").json()["entry"]


def test_input_takes_both_field_spellings_and_unknown_fields(envd, folder):
    for message in (
        {"path": folder, "recursive": False, "includeEntry": True, "nonsense": {"a": 1}},
        {"path": folder, "recursive": False, "include_entry": True},
    ):
        answer = envd.unary("filesystem.Filesystem/CreateWatcher", message)
        assert answer.status_code == 200, answer.text
        envd.unary("filesystem.Filesystem/RemoveWatcher", answer.json())


def test_an_enum_is_taken_by_number(envd):
    with envd.stream("process.Process/Start", bash("sleep 60")) as stream:
        pid = stream.first("start")["pid"]
        answer = envd.unary("process.Process/SendSignal", {"process": {"pid": pid}, "signal": 9})
        assert answer.json() == {}
        assert drain(stream).end["status"] == "signal: killed"


@pytest.mark.parametrize("value", ["abc", "-1", "99999999999"])
def test_a_bad_timeout_is_an_invalid_argument(envd, value):
    answer = envd.unary("process.Process/List", {}, connect_timeout_ms=value)
    rpc_error(answer, 400, "invalid_argument", "parse timeout:")


def test_bad_json_is_an_invalid_argument(envd):
    answer = envd.http.post(
        "/process.Process/List", content=b"{nope", headers={"content-type": "application/json"}
    )
    rpc_error(answer, 400, "invalid_argument")


def test_a_frame_that_lies_about_its_length_does_no_harm(envd):
    for body in (b"", b"\x00\x00", b"\x00\xff\xff\xff\xff{}", b"\x00\x00\x00\x00\x05{}"):
        answer = envd.http.post(
            "/process.Process/Start", content=body, headers={"content-type": STREAM}
        )
        if answer.status_code == 200:
            assert answer.content[0] == END_STREAM and b'"error"' in answer.content
        else:
            assert answer.is_client_error
    assert envd.unary("process.Process/List", {}).status_code == 200


def test_streams_are_never_compressed(envd):
    with envd.stream(
        "process.Process/Start",
        bash("head -c 20000 /dev/zero | tr '\\0' a"),
        accept_encoding="gzip, br, zstd",
        connect_accept_encoding="identity",
    ) as stream:
        assert "content-encoding" not in stream.response.headers
        outcome = drain(stream)
    assert outcome.stdout == b"a" * 20000
    assert set(outcome.flags[:-1]) == {0}


def test_keepalives_fill_silence(envd):
    silent = envd.run("sleep 2.5", keepalive_ping_interval="1")
    assert silent.keepalives == 2
    busy = envd.run("for i in 1 2 3 4 5; do echo $i; sleep 0.4; done", keepalive_ping_interval="1")
    assert busy.keepalives == 0 and busy.stdout == b"1\n2\n3\n4\n5\n"


def frames(pid: int, *inputs: bytes):
    """A StreamInput body: the start frame, then one frame for each input."""
    yield envelope({"start": {"process": {"pid": pid}}})
    for data in inputs:
        yield envelope({"keepalive": {}})
        stdin = base64.b64encode(data).decode()
        yield envelope({"data": {"input": {"stdin": stdin}}})


def stream_input(envd, body):
    return envd.http.post(
        "/process.Process/StreamInput",
        content=body,
        headers={"content-type": STREAM, "connect-protocol-version": "1"},
    )


def test_a_client_stream_feeds_stdin_in_order(envd):
    with envd.stream("process.Process/Start", bash("head -n 2", stdin=True)) as stream:
        pid = stream.first("start")["pid"]
        answer = stream_input(envd, frames(pid, b"first\n", b"second\n"))
        assert answer.status_code == 200
        assert answer.content == envelope({}) + envelope({}, END_STREAM)
        assert drain(stream).stdout == b"first\nsecond\n"


def test_the_end_of_a_client_stream_leaves_stdin_open(envd):
    with envd.stream("process.Process/Start", bash("cat", stdin=True)) as stream:
        pid = stream.first("start")["pid"]
        stream_input(envd, frames(pid, b"one\n"))
        assert envd.send(pid, b"two\n").json() == {}
        assert envd.unary("process.Process/CloseStdin", {"process": {"pid": pid}}).json() == {}
        assert drain(stream).stdout == b"one\ntwo\n"


def test_a_client_stream_that_starts_with_data_is_refused(envd):
    body = envelope({"data": {"input": {"stdin": "aGkK"}}})
    answer = stream_input(envd, body)
    trailer = json.loads(answer.content[5:])
    assert answer.status_code == 200 and answer.content[0] == END_STREAM
    assert trailer["error"]["code"] == "invalid_argument"
    assert envd.run("echo alive").stdout == b"alive\n"


def test_a_client_stream_to_an_unknown_process(envd):
    answer = stream_input(envd, frames(999999, b"x"))
    assert json.loads(answer.content[5:])["error"]["code"] == "not_found"


def test_a_unary_rpc_of_an_unknown_method_is_404_or_unimplemented(envd):
    answer = envd.unary("process.Process/Nope", {})
    assert answer.status_code in (404, 501)
