"""Traces of requests, as a collector receives them; and collectors that do not."""

import http.server
import pathlib
import subprocess
import threading

import make_small_ranker as small
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from conftest import NAME, binary, wait_until
from harness.ports import free_port
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE}-{PARENT}-{flag}" for flag in ("01", "00"))
HTTP_NAME, GRPC_NAME = "POST /v2/models/{model}/infer", "inference.GRPCInferenceService/ModelInfer"


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what it is sent; while it hangs, it answers nothing."""

    daemon_threads = True

    def __init__(self):
        self.messages, self.headers, self.bodies = [], [], []
        self.answers = threading.Event()
        self.answers.set()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list:
        return [span for message in self.messages for group in message.resource_spans for scope in group.scope_spans for span in scope.spans]

    def servers(self) -> list:
        """One a request."""
        return [span for span in self.spans() if span.kind == span.SPAN_KIND_SERVER]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers.wait()
        if self.path == "/v1/traces":
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            self.server.messages.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.answers.set()
    server.shutdown()
    server.server_close()


def body(pairs: int, **more) -> dict:
    return small.request(*small.pairs(np.random.default_rng(5), pairs)) | more


def attributes(holder) -> dict:
    kinds = {attribute.key: attribute.value for attribute in holder.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in kinds.items()}


def test_a_request_is_a_trace_without_its_content(start, ranker, collector):
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=rankers",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }  # fmt: skip
    runtime = start(ranker.as_uri(), "--trace-sample", "1", environment=settings)
    assert runtime.infer(body(3, id="secret-4711", parameters={"priority": 1})).ok
    (server,) = wait_until(collector.servers)
    assert server.name == HTTP_NAME and not server.parent_span_id and server.status.code == 0
    told = attributes(server)
    wanted = {
        "http.response.status_code": 200, "pinnace.model": NAME, "pinnace.version": "1", "pinnace.outcome": "ok",
        "pinnace.pairs": 3, "pinnace.items": 3, "pinnace.priority": "high",
    }  # fmt: skip
    assert wanted.items() <= told.items()
    phases = [span for span in collector.spans() if span is not server and span.kind != span.SPAN_KIND_SERVER]
    assert "compute_infer" in {span.name for span in phases} <= {"queue", "compute_input", "compute_infer", "compute_output"}
    for span in phases:
        assert attributes(span) == {"pinnace.model": NAME, "pinnace.run.requests": 1}
        assert (span.trace_id, span.parent_span_id) == (server.trace_id, server.span_id)
        assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= server.end_time_unix_nano
    resource = attributes(collector.messages[0].resource_spans[0].resource)
    assert resource["service.name"] == "pinnace-runtime" and resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["x-tenant"] == "rankers"
    assert not any(b"secret-4711" in sent for sent in collector.bodies)
    wait_until(lambda: runtime.metric('pinnace_traces_total{outcome="sent"}') == 1)


def test_the_client_s_trace_goes_on_over_http_and_grpc(start, ranker, collector):
    # By chance none is traced: only those whose client says so.
    runtime = start(ranker.as_uri(), "--otlp-endpoint", collector.url, "--trace-sample", "0")
    dense, sparse = small.pairs(np.random.default_rng(5), 2)
    inputs = [
        triton.InferInput("dense", dense.shape, "FP32").set_data_from_numpy(dense),
        triton.InferInput("sparse", sparse.shape, "INT64").set_data_from_numpy(sparse),
    ]
    with triton.InferenceServerClient(f"127.0.0.1:{runtime.grpc_port}") as client:
        for parent in (None, NOT_SAMPLED, SAMPLED):
            given = {"traceparent": parent} if parent else {}
            assert runtime.infer(body(2), headers=given).ok
            client.infer(NAME, inputs, headers=given)
    # What was traced is sent before the process ends.
    assert runtime.stop() == 0
    servers = collector.servers()
    assert sorted(span.name for span in servers) == sorted([HTTP_NAME, GRPC_NAME])
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in servers} == {(TRACE, PARENT)}
    assert all(attributes(span)["pinnace.outcome"] == "ok" for span in servers)


def test_requests_that_are_refused_are_traced_too(start, ranker, collector):
    flags = ["--otlp-endpoint", collector.url, "--trace-sample", "1"]
    runtime = start(ranker.as_uri(), *flags, environment={"OTEL_SERVICE_NAME": "ours"})
    assert runtime.infer({"inputs": []}).status_code == 400
    assert runtime.infer(body(1), model="nobody").status_code == 404
    bad = triton.InferInput("nothing", [1], "FP32").set_data_from_numpy(np.float32([1]))
    with triton.InferenceServerClient(f"127.0.0.1:{runtime.grpc_port}") as client, pytest.raises(triton.InferenceServerException):
        client.infer(NAME, [bad])
    assert runtime.stop() == 0
    found = sorted((span.name, attributes(span)["pinnace.outcome"], span.status.code) for span in collector.servers())
    assert found == [(HTTP_NAME, "invalid", 0), (HTTP_NAME, "not_found", 0), (GRPC_NAME, "invalid", 0)]
    assert len(collector.spans()) == 3
    assert attributes(collector.messages[0].resource_spans[0].resource)["service.name"] == "ours"


def threads(runtime) -> set[str]:
    tasks = pathlib.Path(f"/proc/{runtime.process.pid}/task").iterdir()
    return {(task / "comm").read_text().strip() for task in tasks}


def test_without_a_collector_nothing_is_traced(start, ranker, collector):
    off = start(ranker.as_uri(), "--trace-sample", "1", environment={"OTEL_EXPORTER_OTLP_ENDPOINT": ""})
    assert off.infer(body(1), headers={"traceparent": SAMPLED}).ok
    assert "traces" not in threads(off) and off.stop() == 0
    on = start(ranker.as_uri(), "--otlp-endpoint", collector.url)
    assert "traces" in threads(on) and not collector.bodies


def ask(runtime, count: int):
    content, session = body(1), requests.Session()
    url = f"{runtime.url}/v2/models/{NAME}/infer"
    for _ in range(count):
        assert session.post(url, json=content, timeout=30).ok


def test_a_collector_that_hangs_delays_nobody(start, ranker, collector):
    collector.answers.clear()
    runtime = start(ranker.as_uri(), "--otlp-endpoint", collector.url, "--trace-sample", "1")

    def too_many_wait() -> bool:
        ask(runtime, 256)
        return runtime.metric('pinnace_traces_total{outcome="dropped_queue"}') > 0

    wait_until(too_many_wait, 120)
    # The collector never answers, and the process ends all the same.
    assert runtime.stop() == 0


def test_a_collector_that_is_gone_is_told_of_in_the_log(start, ranker, tmp_path):
    port = free_port()
    runtime = start(ranker.as_uri(), "--otlp-endpoint", f"http://127.0.0.1:{port}", "--trace-sample", "1", "--log-format", "text")
    ask(runtime, 1)
    wait_until(lambda: runtime.metric('pinnace_traces_total{outcome="dropped_collector"}') == 1)
    assert "the collector does not take traces" in (tmp_path / "runtime.log").read_text()
    assert runtime.stop() == 0


@pytest.mark.parametrize(
    "environment, said",
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "a collector is named as http://host:4318"),
        ({"OTEL_TRACES_SAMPLER_ARG": "2"}, "a share is a number from 0 to 1"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "only http/protobuf is spoken",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(environment, said, ranker, tmp_path):
    command = [binary(), "serve", "--model-uri", ranker.as_uri(), "--model-name", NAME, "--cache-dir", tmp_path]
    for flag in ("--listen", "--grpc-listen", "--admin-listen"):
        command += [flag, f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and said in done.stderr
