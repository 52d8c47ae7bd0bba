"""Hostile gRPC and HTTP/2 beside a client that behaves: refused with a reason, or the connection ends."""

import socket
import struct

import grpc
import pytest
from conftest import NAME
from wire import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FLAGS, GOAWAY, HEADERS, LIMIT, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, Attacked, frame, frames, header_block, infer_head, opened, talk,
)  # fmt: skip


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, ranker):
    with Attacked(tmp_path_factory.mktemp("hostile"), ranker, *FLAGS) as attacked:
        yield attacked


def varint(number: int) -> bytes:
    rest = number & (2**64 - 1)
    out = b""
    while rest > 127:
        out, rest = out + bytes([rest & 127 | 128]), rest >> 7
    return out + bytes([rest])


def field(tag: int, content: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(content)) + content


def tensor(name: str, datatype: str, shape: list, more: bytes = b"") -> bytes:
    sizes = b"".join(varint(size) for size in shape)
    return field(5, field(1, name.encode()) + field(2, datatype.encode()) + field(3, sizes) + more)


def message(*parts: bytes, model: str = NAME) -> bytes:
    return field(1, model.encode()) + b"".join(parts)


DENSE_OF, SPARSE_OF = tensor("dense", "FP32", [1, 13]), tensor("sparse", "INT64", [1, 26])
RAW = field(7, bytes(52)) + field(7, bytes(208))
PARAMETER_K = field(4, field(1, b"top_k") + field(2, b"\x10" + varint(-1)))
PARAMETER_TEXT = field(4, field(1, b"timeout") + field(2, field(3, b"soon")))
FLOATS = field(5, field(6, bytes(52)))
MESSAGES = {
    "noise": (b"\xff" * 100, "INVALID_ARGUMENT", "the message is not read"),
    "a field beyond the message": (b"\x0a\xff\xff\xff\xff\x0f", "INVALID_ARGUMENT", "the message is not read"),
    "groups in depth": (b"\x9b\x06" * 100_000, "INVALID_ARGUMENT", "the message is not read"),
    "a million inputs": (message(b"\x2a\x00" * 1_000_000), "INVALID_ARGUMENT", "at most 1024 tensors"),
    "a million raw inputs": (message(b"\x3a\x00" * 1_000_000), "INVALID_ARGUMENT", "at most 1024 tensors"),
    "two thousand inputs": (message(b"\x2a\x00" * 2_000), "INVALID_ARGUMENT", "at most 1024"),
    "no inputs": (message(), "INVALID_ARGUMENT", 'input "dense" is missing'),
    "another model": (message(model="x"), "NOT_FOUND", "not served here"),
    "a negative shape": (message(tensor("dense", "FP32", [-1, 13]), RAW), "INVALID_ARGUMENT", "send one for each input"),
    "a negative dimension": (
        message(tensor("dense", "FP32", [-1, 13]), SPARSE_OF, RAW), "INVALID_ARGUMENT", "negative dimension",
    ),
    "an overflowing shape": (
        message(tensor("dense", "FP32", [2**62, 2**62]), SPARSE_OF, RAW), "INVALID_ARGUMENT", "is too large",
    ),
    "raw bytes that do not fit": (
        message(DENSE_OF, SPARSE_OF, field(7, bytes(51)), field(7, bytes(208))), "INVALID_ARGUMENT", "has 51 bytes",
    ),
    "raw bytes and contents": (
        message(tensor("dense", "FP32", [1, 13], FLOATS), SPARSE_OF, RAW), "INVALID_ARGUMENT", "send one of them",
    ),
    "neither": (message(DENSE_OF, SPARSE_OF), "INVALID_ARGUMENT", "neither contents nor raw_input_contents"),
    "contents of another type": (
        message(tensor("sparse", "INT64", [1, 26], FLOATS)), "INVALID_ARGUMENT", "elements of contents are INT64",
    ),
    "BYTES over gRPC": (message(tensor("sparse", "BYTES", [1, 26])), "INVALID_ARGUMENT", '"BYTES" is not one of'),
    "a negative top_k over gRPC": (message(DENSE_OF, SPARSE_OF, RAW, PARAMETER_K), "INVALID_ARGUMENT", '"top_k"'),
    "a timeout of text": (message(DENSE_OF, SPARSE_OF, RAW, PARAMETER_TEXT), "INVALID_ARGUMENT", '"timeout"'),
    "NaN over gRPC": (
        message(DENSE_OF, SPARSE_OF, field(7, struct.pack("<13f", *[float("nan")] * 13)), field(7, bytes(208))),
        "INVALID_ARGUMENT", "NaN or infinity",
    ),
    "an id below over gRPC": (
        message(DENSE_OF, SPARSE_OF, field(7, bytes(52)), field(7, b"\xff" * 208)), "INVALID_ARGUMENT", "id -1",
    ),
}  # fmt: skip


def data_frames(content: bytes) -> bytes:
    parts = [content[at : at + 16384] for at in range(0, len(content), 16384)] or [b""]
    return b"".join(frame(DATA, END_STREAM * (at == len(parts) - 1), 1, part) for at, part in enumerate(parts))


def prefixed(content: bytes, flag: int = 0, length: int | None = None) -> bytes:
    return bytes([flag]) + (len(content) if length is None else length).to_bytes(4, "big") + content


@pytest.mark.parametrize("name", MESSAGES)
def test_over_grpc(attacked, name):
    sent, code, said = MESSAGES[name]
    with grpc.insecure_channel(f"127.0.0.1:{attacked.runtime.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            infer(sent, timeout=30)
    assert error.value.code().name == code and said in error.value.details()
    attacked.unharmed()


def test_other_methods_over_grpc(attacked):
    with grpc.insecure_channel(f"127.0.0.1:{attacked.runtime.grpc_port}") as channel:
        for method, sent, code in [
            ("ModelStreamInfer", b"", "UNIMPLEMENTED"),
            ("ModelReady", b"\xff", "INVALID_ARGUMENT"),
            ("ModelConfig", b"\x0a\x01x", "NOT_FOUND"),
            ("ServerMetadata", b"\x0a\x00" * 40_000, "RESOURCE_EXHAUSTED"),
            ("SystemSharedMemoryRegister", b"", "UNIMPLEMENTED"),
            ("RepositoryModelLoad", b"", "UNIMPLEMENTED"),
        ]:
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(sent, timeout=30)
            assert error.value.code().name == code, (method, error.value)
    attacked.unharmed()


def test_heads_of_grpc(attacked):
    sent = message(DENSE_OF, SPARSE_OF, RAW)
    with grpc.insecure_channel(f"127.0.0.1:{attacked.runtime.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            infer(sent, timeout=30, compression=grpc.Compression.Gzip)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.RpcError) as error:
            infer(sent, timeout=30, metadata=[("x", "y" * 100_000)])
        assert error.value.code() in [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN]
    attacked.unharmed()


# Messages whose prefix lies, and what grpc-status answers them.
PREFIXES = {
    "a message that is not there": (b"", 3),
    "half a prefix": (b"\0\0\0", 3),
    "a length beyond the message": (prefixed(b"abc", length=100), 3),
    "a length beyond the limit": (prefixed(b"abc", length=2**32 - 1), 8),
    "a flag nobody knows": (prefixed(message(), flag=7), 3),
    "compressed without saying so": (prefixed(message(), flag=1), 3),
    "two messages": (prefixed(message()) * 2, 3),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_prefixes_that_lie(attacked, name):
    content, code = PREFIXES[name]
    answer = stream_answer(attacked, frame(HEADERS, END_HEADERS, 1, infer_head()) + data_frames(content))
    assert any(grpc_status(block) == code for kind, _, _, block in answer if kind == HEADERS), answer
    attacked.unharmed()


def test_a_time_that_is_none(attacked):
    answer = stream_answer(attacked, frame(HEADERS, END_HEADERS, 1, infer_head(("grpc-timeout", "soon"))) + data_frames(b""))
    assert any(grpc_status(block) == 3 for kind, _, _, block in answer if kind == HEADERS), answer
    attacked.unharmed()


def stream_answer(attacked, request: bytes) -> list:
    """Frames of the answer to stream 1; the connection is ended by us when its last one is there."""
    answer = b""
    with socket.create_connection(("127.0.0.1", attacked.runtime.grpc_port), timeout=20) as connection:
        connection.sendall(opened() + request)
        while not any(stream == 1 and (flags & END_STREAM or kind == RST_STREAM) for kind, flags, stream, _ in frames(answer)):
            block = connection.recv(1 << 16)
            assert block, answer
            answer += block
    return frames(answer)


# The name, and the digits of one, in HPACK's Huffman code.
STATUS_NAME = bytes.fromhex("889acac8b21234da8f")
DIGITS = [bytes.fromhex("81" + code) for code in ["07", "0f", "17", "67", "6b", "6f", "73", "77", "7b", "7f"]]


def grpc_status(block: bytes) -> int | None:
    """Of a connection's first answer, where names are not indexed yet."""
    _, found, value = block.partition(STATUS_NAME)
    return DIGITS.index(value[:2]) if found and value[:2] in DIGITS else None


HUGE_BLOCK = infer_head(*[(f"x-{index}", "y" * 100) for index in range(2000)])
# Frames that break HTTP/2, each behind the preface and the settings.
BROKEN = {
    "no preface": b"\0" * 100,
    "settings of a wrong size": PREFACE + frame(SETTINGS, 0, 0, b"\0" * 5),
    "settings on a stream": PREFACE + frame(SETTINGS, 0, 1),
    "a window beyond 31 bits": PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**32 - 1)),
    "no settings": PREFACE + frame(PING, 0, 0, bytes(8)),
    "data on no stream": opened() + frame(DATA, 0, 0, b"x"),
    "data on an idle stream": opened() + frame(DATA, 0, 5, b"x"),
    "headers on no stream": opened() + frame(HEADERS, END_HEADERS, 0, infer_head()),
    "an even stream": opened() + frame(HEADERS, END_HEADERS, 2, infer_head()),
    "a stream that goes back": opened() + frame(HEADERS, 5, 5, infer_head()) + frame(HEADERS, 5, 3, infer_head()),
    "a frame beyond the limit": opened() + (2**24 - 1).to_bytes(3, "big") + bytes([DATA, 0, 0, 0, 0, 1]) + bytes(1 << 20),
    "padding beyond the frame": opened() + frame(HEADERS, END_HEADERS | 8, 1, b"\xff" + infer_head()[:10]),
    "an index nobody has": opened() + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\x07"),
    "a text without end": opened() + frame(HEADERS, END_HEADERS, 1, b"\x10\x7f\xff\xff\xff\x7f"),
    "a continuation of nothing": opened() + frame(CONTINUATION, END_HEADERS, 1, infer_head()),
    "something between continuations": opened() + frame(HEADERS, 0, 1, infer_head()) + frame(PING, 0, 0, bytes(8)),
    "continuations without end": opened() + frame(HEADERS, 0, 1, infer_head()) + frame(CONTINUATION, 0, 1, header_block(("x", "y" * 16000))) * 400,
    "a ping of a wrong size": opened() + frame(PING, 0, 0, b"1234567"),
    "a window of 0": opened() + frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "a window that overflows": opened() + frame(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4, "big")) * 2,
    "a reset of an idle stream": opened() + frame(RST_STREAM, 0, 9, bytes(4)),
    "a promise": opened() + frame(HEADERS, END_HEADERS, 1, infer_head()) + frame(5, END_HEADERS, 1, bytes(4) + infer_head()),
    "HTTP/1": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_frames_that_break_http2(attacked, name):
    """The connection is closed, by GOAWAY where HTTP/2 was spoken; a stream's own error may be told first."""
    answer = frames(talk(attacked.runtime.grpc_port, BROKEN[name]))
    assert any(kind == GOAWAY and payload[4:8] != bytes(4) for kind, _, _, payload in answer) or not BROKEN[name].startswith(opened())
    attacked.unharmed()


def test_a_head_of_headers_beyond_the_limit(attacked):
    blocks = [HUGE_BLOCK[at : at + 16384] for at in range(0, len(HUGE_BLOCK), 16384)]
    parts = [frame(HEADERS if at == 0 else CONTINUATION, END_HEADERS * (at == len(blocks) - 1), 1, block) for at, block in enumerate(blocks)]
    answer = frames(talk(attacked.runtime.grpc_port, opened() + b"".join(parts)))
    assert any(kind in (GOAWAY, RST_STREAM) or (kind == HEADERS and stream == 1) for kind, _, stream, _ in answer)
    attacked.unharmed()


def test_after_all_that(attacked):
    assert not attacked.good.errors and min(attacked.good.answered.values()) > 100
    assert attacked.peak_bytes() < 6 * LIMIT
    attacked.leaves_nothing()
