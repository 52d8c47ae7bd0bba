"""gRPC: answers are those of ONNX Runtime, refusals those of HTTP, and connections end without losing a request."""

import concurrent.futures
import signal
import socket
import struct

import grpc
import make_small_ranker as small
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from conftest import NAME, lists, wait_until
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException


def tensors(dense: np.ndarray, sparse: np.ndarray) -> list:
    inputs = [triton.InferInput("dense", dense.shape, "FP32"), triton.InferInput("sparse", sparse.shape, "INT64")]
    for tensor, values in zip(inputs, [dense, sparse]):
        tensor.set_data_from_numpy(values)
    return inputs


def typed(dense: np.ndarray, sparse: np.ndarray) -> service_pb2.ModelInferRequest:
    """The request with typed contents, which tritonclient never sends."""
    request = service_pb2.ModelInferRequest(model_name=NAME, id="typed")
    for name, datatype, values in [("dense", "FP32", dense), ("sparse", "INT64", sparse)]:
        tensor = request.inputs.add(name=name, datatype=datatype, shape=values.shape)
        field = tensor.contents.fp32_contents if datatype == "FP32" else tensor.contents.int64_contents
        field.extend(values.ravel().tolist())
    return request


def connect(runtime) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"127.0.0.1:{runtime.grpc_port}")


def stub(channel) -> service_pb2_grpc.GRPCInferenceServiceStub:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def channel(runtime):
    return grpc.insecure_channel(f"127.0.0.1:{runtime.grpc_port}")


def test_triton_client_unchanged(start, ranker, session):
    runtime = start(ranker.as_uri(), "--model-version", "7")
    client = connect(runtime)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NAME) and client.is_model_ready(NAME, "7") and not client.is_model_ready(NAME, "8")
    assert "statistics" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata(NAME, "7")
    assert list(metadata.versions) == ["7"] and list(metadata.inputs[0].shape) == [-1, small.DENSE]
    config = client.get_model_config(NAME).config
    assert config.max_batch_size == 4096 and config.dynamic_batching.priority_levels == 3
    assert config.input[1].data_type == 9 and list(config.input[1].dims) == [small.SPARSE]
    assert client.get_model_repository_index().models[0].state == "READY"
    for dense, sparse in lists(100):
        result = client.infer(NAME, tensors(dense, sparse), request_id="r1", priority=1, timeout=4_000_000)
        expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
        assert np.abs(result.as_numpy("score") - expected).max() <= 1e-6
        assert (result.get_response().id, result.get_response().model_version) == ("r1", "7")
    (statistics,) = client.get_inference_statistics(NAME).model_stats
    assert statistics.inference_stats.success.count == statistics.inference_stats.queue.count == 100
    assert statistics.inference_count == sum(len(dense) for dense, _ in lists(100))
    assert client.get_inference_statistics() == client.get_inference_statistics(NAME, "7")
    assert runtime.metric("pinnace_requests_total") == 100
    client.close()


def test_typed_contents_and_unknown_parameters(start, ranker, session):
    runtime = start(ranker.as_uri())
    dense, sparse = lists(1)[0]
    expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
    request = typed(dense, sparse)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.outputs.add(name="score")
    with channel(runtime) as open_channel:
        answer = stub(open_channel).ModelInfer(request)
    assert answer.id == "typed" and not answer.outputs[0].HasField("contents")
    assert np.abs(np.frombuffer(answer.raw_output_contents[0], np.float32) - expected).max() <= 1e-6


def test_ids_of_any_size_arrive(start, ranker):
    """INT64 over the wire is exact: the refusal names the id that was sent."""
    runtime = start(ranker.as_uri())
    dense, sparse = small.pairs(np.random.default_rng(1), 1)
    for big in [2**63 - 1, -(2**63), 2**53 + 1]:
        sparse[0, 3] = big
        for message in [f"id {big} at element 3"]:
            with pytest.raises(InferenceServerException, match=message):
                connect(runtime).infer(NAME, tensors(dense, sparse))
            with channel(runtime) as open_channel, pytest.raises(grpc.RpcError, match=message):
                stub(open_channel).ModelInfer(typed(dense, sparse))


def test_refusals_have_the_code_and_the_name_of_the_fault(start, ranker):
    runtime = start(ranker.as_uri(), "--max-body-bytes", "100000")
    good = typed(*lists(1)[0])

    def refused(code: str, named: str, change, **options):
        request = service_pb2.ModelInferRequest()
        request.CopyFrom(good)
        change(request)
        with channel(runtime) as open_channel, pytest.raises(grpc.RpcError) as error:
            stub(open_channel).ModelInfer(request, **options)
        assert (error.value.code().name, named in error.value.details()) == (code, True), error.value.details()

    refused("INVALID_ARGUMENT", '"sparse" is missing', lambda request: request.inputs.pop())
    refused("INVALID_ARGUMENT", "contents are FP64", lambda request: setattr(request.inputs[0], "datatype", "FP64"))
    refused("INVALID_ARGUMENT", "BYTES", lambda request: setattr(request.inputs[0], "datatype", "BYTES"))
    refused("INVALID_ARGUMENT", "raw_input_contents", lambda request: request.raw_input_contents.append(b"x"))
    refused("NOT_FOUND", "other", lambda request: setattr(request, "model_name", "other"))
    refused("NOT_FOUND", "version", lambda request: setattr(request, "model_version", "9"))
    refused("RESOURCE_EXHAUSTED", "--max-body-bytes", lambda request: setattr(request, "id", "x" * 100_001))
    with channel(runtime) as open_channel:
        assert stub(open_channel).ModelInfer(good).id == "typed"
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            list(stub(open_channel).ModelStreamInfer(iter([good])))
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            stub(open_channel).ModelInfer(good, compression=grpc.Compression.Gzip)
    count = lambda outcome: runtime.metric(f'pinnace_requests_total{{model="{NAME}",version="1",outcome="{outcome}"')  # noqa: E731
    assert [count(outcome) for outcome in ["ok", "invalid", "not_found", "too_large"]] == [1, 5, 2, 1]
    assert runtime.metric("pinnace_in_flight ") == runtime.metric("pinnace_in_flight_bytes ") == 0


def test_messages_up_to_the_limit(start, ranker, session):
    runtime = start(ranker.as_uri())
    dense, sparse = small.pairs(np.random.default_rng(2), 4096)
    request = typed(dense, sparse)
    request.id = "x" * (6 << 20)
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{runtime.grpc_port}", unlimited) as open_channel:
        answer = stub(open_channel).ModelInfer(request)
    expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
    assert np.abs(np.frombuffer(answer.raw_output_contents[0], np.float32) - expected).max() <= 1e-6


def test_deadlines_of_the_client(start, ranker):
    runtime = start(ranker.as_uri())
    request = typed(*small.pairs(np.random.default_rng(1), 4))
    request.parameters["timeout"].int64_param = 1

    def refused() -> float:
        return runtime.metric(f'pinnace_requests_total{{model="{NAME}",version="1",outcome="refused_deadline"')

    with channel(runtime) as open_channel:
        with pytest.raises(grpc.RpcError) as error:
            stub(open_channel).ModelInfer(request)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "deadline" in error.value.details()
        assert refused() == 1
        del request.parameters["timeout"]
        assert stub(open_channel).ModelInfer(request, timeout=30).id == "typed"
    # A client of the library gives up by itself before the server can; so this one is written by hand.
    def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
        return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    headers = {
        ":method": "POST", ":scheme": "http", ":path": "/inference.GRPCInferenceService/ModelInfer", ":authority": "x",
        "content-type": "application/grpc", "te": "trailers", "grpc-timeout": "1n",
    }  # fmt: skip
    block = b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())
    message = request.SerializeToString()
    message = b"\0" + struct.pack(">I", len(message)) + message
    with socket.create_connection(("127.0.0.1", runtime.grpc_port)) as raw:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
        raw.sendall(preface + frame(1, 4, 1, block) + frame(0, 1, 1, message))
        wait_until(lambda: refused() == 2)


def test_same_admission_as_http(start, ranker):
    runtime = start(ranker.as_uri(), "--max-queue", "2", "--workers", "1")
    request = typed(*small.pairs(np.random.default_rng(5), 2048))

    def ask(_) -> str:
        with channel(runtime) as open_channel:
            try:
                stub(open_channel).ModelInfer(request, timeout=30)
                return "OK"
            except grpc.RpcError as error:
                assert "queue" in error.details() and ("grpc-retry-pushback-ms", "1000") in error.trailing_metadata()
                return error.code().name

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(ask, range(100)))
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    refused = f'pinnace_requests_total{{model="{NAME}",version="1",outcome="refused_queue"'
    assert runtime.metric(refused) == codes.count("RESOURCE_EXHAUSTED")
    assert wait_until(lambda: runtime.metric("pinnace_in_flight ") == 0)
    assert runtime.metric("pinnace_in_flight_bytes ") == 0


def test_bounded_in_bytes(start, ranker):
    runtime = start(ranker.as_uri(), "--max-queue-bytes", "1000")
    with channel(runtime) as open_channel, pytest.raises(grpc.RpcError, match="memory"):
        stub(open_channel).ModelInfer(typed(*small.pairs(np.random.default_rng(5), 16)))


def test_connections_end_at_their_age_without_losing_a_request(start, ranker):
    runtime = start(ranker.as_uri(), "--connection-max-age", "200ms")
    request = typed(*lists(1)[0])
    states = []
    with channel(runtime) as open_channel:
        open_channel.subscribe(states.append)
        # GOAWAY makes the channel idle, and the next request connects again.
        wait_until(lambda: stub(open_channel).ModelInfer(request).id and states.count(grpc.ChannelConnectivity.READY) > 2)


def test_silent_connections_are_closed(start, ranker):
    runtime = start(ranker.as_uri(), "--header-timeout", "200ms", "--body-timeout", "200ms")
    with socket.create_connection(("127.0.0.1", runtime.grpc_port)) as silent:
        silent.settimeout(10)
        while silent.recv(4096):
            pass


def test_sigterm_loses_no_request(start, ranker):
    runtime = start(ranker.as_uri(), "--drain-delay", "0s", "--workers", "1", "--request-timeout", "60s")
    request = typed(*small.pairs(np.random.default_rng(5), 4096))
    with channel(runtime) as open_channel:
        answers = [stub(open_channel).ModelInfer.future(request) for _ in range(4)]
        wait_until(lambda: runtime.metric("pinnace_in_flight ") >= 4 or any(answer.done() for answer in answers))
        runtime.process.send_signal(signal.SIGTERM)
        assert [len(answer.result().raw_output_contents[0]) for answer in answers] == [4096 * 4] * 4
    assert runtime.process.wait(30) == 0


def test_not_loaded_yet(start, ranker, store):
    store.faults = [503] * 6
    uri = "s3://models/ranker"
    environment = {
        "AWS_ENDPOINT_URL": store.url, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": "us-east-1"
    }  # fmt: skip
    runtime = start(uri, wait=False, environment=environment)
    with channel(runtime) as open_channel:
        loading = lambda: requests.get(f"{runtime.admin}/v2/health/live", timeout=5).status_code == 200  # noqa: E731
        wait_until(loading)
        grpc.channel_ready_future(open_channel).result(30)
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            stub(open_channel).ModelInfer(typed(*lists(1)[0]))
        assert not stub(open_channel).ServerReady(service_pb2.ServerReadyRequest()).ready
        assert stub(open_channel).ServerLive(service_pb2.ServerLiveRequest()).live
    wait_until(runtime.ready)
