"""What the server tells of itself: spans and log lines by OTLP, JSON lines, counters."""

import gzip
import json
import os
import re
import signal
import subprocess
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from e2b import Sandbox
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from support.env import optional
from support.server import Server, free_port
from support.wait import until

pytestmark = pytest.mark.skipif(optional("WARREN_BIN") is None, reason="needs WARREN_BIN")

QUIET = ("--end-sandboxes", "--warm", "0", "--slots", "2")
# Everything is sent soon.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50"}


class Collector(ThreadingHTTPServer):
    """Takes what is sent by OTLP, or has its own way with it."""

    daemon_threads = True

    def __init__(self, answer=lambda: (200, b"")):
        super().__init__(("127.0.0.1", 0), Taker)
        self.answer = answer
        self.requests = []
        self.spans: list[tuple[dict, Span]] = []
        self.logs = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, path, headers, body):
        self.requests.append((path, headers))
        if path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                of = attributes(group.resource)
                spans = [span for scope in group.scope_spans for span in scope.spans]
                self.spans += [(of, span) for span in spans]
        elif path == "/v1/logs":
            for group in ExportLogsServiceRequest.FromString(body).resource_logs:
                of = attributes(group.resource)
                lines = [line for scope in group.scope_logs for line in scope.log_records]
                self.logs += [(of, line) for line in lines]

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Taker(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(self.path, dict(self.headers), body)
        status, answer = self.server.answer()
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def attributes(of) -> dict:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes
    }


def variables(monkeypatch, **values):
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    for name, value in {**SOON, **values}.items():
        monkeypatch.setenv(name, value)


def test_a_create_is_one_trace_from_the_client_to_the_runtime(tmp_path, monkeypatch):
    variables(monkeypatch)
    one = Server(tmp_path)
    trace, parent = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    with Collector() as collector:
        one.start(*QUIET, "--otlp-endpoint", f"{collector.url}/")
        try:
            with one.api() as api:
                made = api.post(
                    "/v2/sandboxes",
                    json={"templateID": "base"},
                    headers={"traceparent": f"00-{trace}-{parent}-01"},
                )
                assert made.status_code == 201, made.text
                bad = api.get("/v2/sandboxes", headers={"traceparent": "00-zz-1-01"})
                assert bad.status_code == 200
        finally:
            # What has gathered is sent before the end.
            assert one.stop() == 0
        assert {path for path, _ in collector.requests} == {"/v1/traces", "/v1/logs"}
        own = [span for _, span in collector.spans if span.trace_id.hex() == trace]
        others = [span for _, span in collector.spans if span.trace_id.hex() != trace]
        resources = [of for of, _ in collector.spans + collector.logs]
        messages = [line.body.string_value for _, line in collector.logs]
    assert all(of["service.name"] == "warren" and of["service.version"] for of in resources)
    assert "node started" in messages and "stopping" in messages

    [root] = [span for span in own if span.parent_span_id.hex() == parent]
    assert (root.name, root.kind) == ("POST /v2/sandboxes", Span.SPAN_KIND_SERVER)
    told = attributes(root)
    assert told["http.route"] == "/v2/sandboxes"
    assert told["http.response.status_code"] == 201
    assert told["request_id"] == made.headers["x-request-id"]
    # Each phase is a span below that of which it is a part.
    by_id = {span.span_id: span for span in own}
    for path in [
        ["POST /v2/sandboxes", "create", "node create", "boot", "runtime start", "launch"],
        ["POST /v2/sandboxes", "create", "node create", "boot", "runtime start", "agent up"],
        ["POST /v2/sandboxes", "create", "node create", "claim"],
        ["POST /v2/sandboxes", "create", "enrol"],
    ]:
        [span] = [span for span in own if span.name == path[-1]]
        names = []
        while span is not None:
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            names.insert(0, span.name)
            span = by_id.get(span.parent_span_id)
        assert names == path
    [create] = [span for span in own if span.name == "create"]
    assert attributes(create)["sandbox_id"] == made.json()["sandboxID"]
    # A header that is no good begins a trace of its own.
    assert any(span.name == "GET /v2/sandboxes" and not span.parent_span_id for span in others)


def test_the_usual_variables_are_heeded(tmp_path, monkeypatch):
    one = Server(tmp_path)
    with Collector() as collector:
        variables(
            monkeypatch,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=burrows",
            OTEL_SERVICE_NAME="burrow",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=tests",
            OTEL_LOGS_EXPORTER="none",
        )
        one.start(*QUIET)
        try:
            with one.api() as api:
                assert api.get("/v2/sandboxes").status_code == 200
            until(lambda: collector.spans, "spans", 30)
        finally:
            one.stop()
        assert {path for path, _ in collector.requests} == {"/v1/traces"}
        assert all(headers["x-tenant"] == "burrows" for _, headers in collector.requests)
        of, _ = collector.spans[0]
        assert of["service.name"] == "burrow"
        assert of["deployment.environment"] == "tests"


@pytest.mark.parametrize("trouble", ["gone", "failing", "hanging", "babbling"])
def test_a_collector_in_trouble_costs_nothing_but_what_it_misses(tmp_path, monkeypatch, trouble):
    # A kind that can't be sent is told once.
    variables(monkeypatch, OTEL_EXPORTER_OTLP_TIMEOUT="200", OTEL_BSP_MAX_QUEUE_SIZE="16")
    ended = threading.Event()

    def answer():
        if trouble == "hanging":
            ended.wait(60)
        return {"failing": (503, b""), "babbling": (200, b"\xff" * 100)}.get(trouble, (200, b""))

    one = Server(tmp_path)
    complaint = "the OTLP collector does not take what is sent"
    with Collector(answer) as collector:
        url = f"http://127.0.0.1:{free_port()}" if trouble == "gone" else collector.url
        one.start(*QUIET, "--otlp-endpoint", url)
        try:
            with one.api() as api:
                for _ in range(50):
                    assert api.get("/v2/sandboxes").status_code == 200
            with one.create() as sandbox:
                assert sandbox.commands.run("echo on").stdout == "on\n"
            if trouble != "babbling":
                for what in ("spans", "log lines"):
                    told = rf'{complaint} what="{what}"'
                    until(lambda: re.search(told, one.log.read_text()), told, 30)
        finally:
            assert one.stop() == 0
            ended.set()
    assert one.log.read_text().count(complaint) == (0 if trouble == "babbling" else 2)


@pytest.mark.parametrize(
    ("flags", "more", "told"),
    [
        (["--otlp-endpoint", "collector:4318"], {}, "must begin with http:// or https://"),
        ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, "read the collector's URL 'x'"),
        (
            [],
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "grpc is not spoken, only http/protobuf",
        ),
    ],
)
def test_a_collector_that_can_not_be_meant_is_refused_at_start(tmp_path, flags, more, told):
    done = subprocess.run(
        [optional("WARREN_BIN"), "up", "--data-dir", tmp_path / "data", *flags],
        env={"PATH": os.environ["PATH"], **more},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0 and told in done.stderr
    assert not (tmp_path / "data").exists()


def test_json_lines_have_standard_output_for_themselves(tmp_path):
    out, err, key = tmp_path / "out", tmp_path / "err", tmp_path / "key"
    port = free_port()
    command = [optional("WARREN_BIN"), "up", "--data-dir", tmp_path / "data", *QUIET]
    command += ["--api-key-file", key, "--listen", f"127.0.0.1:{port}", "--templates", "none"]
    if layers := optional("WARREN_LAYERS_DIR"):
        command += ["--layers-dir", layers]
    env = {"PATH": os.environ["PATH"], "WARREN_LOG": "debug"}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        server = subprocess.Popen(
            [*command, "--log-format", "json"], env=env, stdout=stdout, stderr=stderr
        )
    try:
        until(lambda: "Warren is ready" in err.read_text(), "the server is up", 60)
        url = f"http://127.0.0.1:{port}"
        options = {"api_key": key.read_text().strip(), "api_url": url, "sandbox_url": url}
        sandbox = Sandbox.create("base", **options)
        sandbox.kill()
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(45) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all({"timestamp", "level", "target", "fields"} <= set(line) for line in lines)
    assert any(line["fields"].get("message") == "node started" for line in lines)
    # Lines that a request wrote name it.
    spans = [span for line in lines for span in line.get("spans", [])]
    assert any(span["name"] == "request" and span["request_id"] for span in spans)
    assert key.read_text().strip() not in out.read_text()


# Units that have a base unit, by convention, and names that only counters end with.
NOT_BASE = "milliseconds|microseconds|minutes|hours|days|kilobytes|megabytes|mib|bits|percent"


def test_counters_are_named_and_told_as_the_convention_has_it(tmp_path):
    one, port = Server(tmp_path), free_port()
    one.start(*QUIET, "--metrics-listen", f"127.0.0.1:{port}")
    try:
        with one.create() as sandbox:
            sandbox.pause()
            sandbox.connect()
        with one.create():
            answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    finally:
        one.stop()
    kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers["content-type"] == kind
    # The parser refuses what is not of the format: order, suffixes, buckets, escapes, the end.
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    for name, family in families.items():
        assert re.fullmatch(r"warren_[a-z]+(_[a-z]+)*", name), name
        assert family.documentation.strip(), name
        assert family.type in ("counter", "gauge", "histogram"), name
        assert not re.search(rf"_({NOT_BASE})(_|$)", name), name
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_created")), name
        if family.type == "histogram":
            assert name.endswith(("_seconds", "_bytes")), name
        for sample in family.samples:
            for label in sample.labels:
                assert re.fullmatch(r"[a-z][a-z_]*", label), sample
            assert sample.value >= 0, sample
    told = {
        "http_requests", "http_request_seconds", "sandbox_creates", "sandbox_create_seconds",
        "sandbox_ends", "sandbox_pauses", "sandbox_resumes", "template_builds", "build_info",
        "sandboxes", "team_sandboxes", "memory_available_ratio", "cpu_used_ratio", "disk_bytes",
        "database_bytes", "webhook_deliveries_pending",
    }  # fmt: skip
    assert {name.removeprefix("warren_") for name in families} == told

    def counted(name):
        return sum(sample.value for sample in families[f"warren_{name}"].samples)

    assert (counted("sandbox_creates"), counted("sandbox_ends")) == (2, 1)
    assert (counted("sandbox_pauses"), counted("sandbox_resumes")) == (1, 1)
    assert counted("template_builds") == 0
