"""Hostile HTTP beside a client that behaves: each request is refused with its reason, and nobody else notices.

Refusals by the protocol's library (a head that is no HTTP) have a status and no text.
"""

import gzip
import json

import make_small_ranker as small
import numpy as np
import pytest
from conftest import NAME
from wire import FLAGS, LIMIT, Attacked, opened, talk

INFER = f"/v2/models/{NAME}/infer"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, ranker):
    with Attacked(tmp_path_factory.mktemp("hostile"), ranker, *FLAGS) as attacked:
        yield attacked


def head(length: int | None = None, path: str = INFER, method: str = "POST", **headers) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(body: bytes, **headers) -> bytes:
    return head(len(body), Connection="close", **headers) + body


def inputs(rows: int = 2) -> dict:
    """A good request by tensor, to be spoilt."""
    request = small.request(*small.pairs(np.random.default_rng(1), rows))
    return {tensor["name"]: tensor for tensor in request["inputs"]}


def changed(name: str, /, remove: tuple = (), request: dict | None = None, rows: int = 2, **fields) -> bytes:
    tensors = inputs(rows)
    tensors[name] |= fields
    for key in remove:
        del tensors[name][key]
    return post(json.dumps({"inputs": list(tensors.values())} | (request or {})).encode())


def asked(**request) -> bytes:
    return post(json.dumps({"inputs": list(inputs().values())} | request).encode())


def with_tensors(*tensors: dict) -> bytes:
    return post(json.dumps({"inputs": list(tensors)}).encode())


def element(name: str, at: int, text: str) -> bytes:
    """One element of a tensor, written as no encoder writes it."""
    tensors = inputs()
    tensors[name]["data"][at] = "HERE"
    return post(json.dumps({"inputs": list(tensors.values())}).replace('"HERE"', text).encode())


def part(name: str, rows: int, columns: int) -> dict:
    return {"name": name, "shape": [rows, columns], "datatype": "INT64", "data": [0] * (rows * columns)}


def binary(sizes: dict | None = None, tail: bytes = b"", cut: int = 0, length=None, **values) -> bytes:
    tensors = inputs()
    raw = b""
    for name, kind in [("dense", np.float32), ("sparse", np.int64)]:
        data = np.array(tensors[name].pop("data"), kind)
        if name in values:
            data[0] = values[name]
        tensors[name]["parameters"] = {"binary_data_size": (sizes or {}).get(name, data.nbytes)}
        raw += data.tobytes()
    text = json.dumps({"inputs": list(tensors.values())}).encode()
    body = text + raw[: len(raw) - cut] + tail
    return post(body, Inference_Header_Content_Length=len(text) if length is None else length)


def chunked(*chunks: bytes, **headers) -> bytes:
    return head(Transfer_Encoding="chunked", Connection="close", **headers) + b"".join(chunks)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


DENSE, SPARSE = inputs()["dense"], inputs()["sparse"]
EMPTY_TENSOR = b'{"name":"","shape":[],"datatype":""}'

# What is sent, the status, and what the answer says.
BODIES = {
    "no body": (post(b""), 400, "not an infer request"),
    "null": (post(b"null"), 400, "not an infer request"),
    "array": (post(b"[]"), 400, "not an infer request"),
    "no inputs": (post(b"{}"), 400, "`inputs`"),
    "inputs is an object": (post(b'{"inputs":{}}'), 400, "an array of at most 1024 tensors"),
    "inputs twice": (post(b'{"inputs":[],"inputs":[]}'), 400, "duplicate field `inputs`"),
    "cut JSON": (post(asked().split(b"\r\n\r\n", 1)[1][:-9]), 400, "EOF"),
    "more behind JSON": (post(asked().split(b"\r\n\r\n", 1)[1] + b"}"), 400, "trailing characters"),
    "depth bomb": (post(b"[" * 1_000_000), 400, "not an infer request"),
    "objects in depth": (post(b'{"inputs":[],"x":' + b'{"a":' * 1_000_000), 400, "not an infer request"),
    "depth in data": (element("dense", 0, "[" * 100_000 + "]" * 100_000), 400, "recursion limit"),
    "a million inputs": (post(b'{"inputs":[' + b",".join([EMPTY_TENSOR] * 1_000_000) + b"]}"), 400, "at most 1024 tensors"),
    "a million outputs": (asked(outputs=[{"name": ""}] * 1_000_000), 400, "at most 1024 tensors"),
    "not UTF-8": (post(b'{"inputs":[{"name":"\xff\xfe"}]}'), 400, "not an infer request"),
    "UTF-16": (post('{"inputs":[]}'.encode("utf-16")), 400, "not an infer request"),
    "half a surrogate": (post(b'{"inputs":[{"name":"\\ud800"}]}'), 400, "not an infer request"),
    "zeros": (post(b"\0" * 100_000), 400, "not an infer request"),
    "a name that is a number": (changed("dense", name=7), 400, "expected a string"),
    "negative shape": (changed("dense", shape=[-2, 13]), 400, '"dense": shape [-2, 13] has a negative dimension'),
    "overflowing shape": (changed("dense", shape=[2**62, 2**62]), 400, '"dense": shape [4611686018427387904'),
    "overflowing bytes": (changed("dense", shape=[2**62]), 400, "is too large"),
    "a shape beyond 64 bits": (changed("dense", shape=[2**64]), 400, "not an infer request"),
    "a shape that is no number": (changed("dense", shape=["2", 13]), 400, "not an infer request"),
    "a broken size": (changed("dense", shape=[2.5, 13]), 400, "not an infer request"),
    "a large shape of little data": (changed("dense", shape=[1 << 30, 13]), 400, "13958643712 elements"),
    "no dimension": (changed("dense", shape=[], data=[1]), 400, "the model takes [-1, 13]"),
    "no rows": (changed("dense", shape=[0, 13], data=[]), 400, "at least 1"),
    "a hundred thousand dimensions": (changed("dense", shape=[1] * 100_000, data=[1]), 400, "the model takes [-1, 13]"),
    "missing columns": (changed("sparse", shape=[2, 25], data=[0] * 50), 400, "the model takes [-1, 26]"),
    "rows that differ": (changed("sparse", shape=[1, 26], data=[0] * 26), 400, "its first dimension is 1, or 1"),
    "more rows than there may be": (
        with_tensors(DENSE | {"shape": [1, 13], "data": [0] * 13}, SPARSE | {"shape": [4097, 26], "data": [0] * (4097 * 26)}),
        400,
        "at most 4096 are taken (maxBatchSize",
    ),
    "BYTES": (changed("sparse", datatype="BYTES"), 400, '"BYTES" is not one of BOOL'),
    "a small datatype": (changed("dense", datatype="fp32"), 400, '"fp32" is not one of BOOL'),
    "another datatype": (changed("dense", datatype="FP64"), 400, "datatype is FP64, the model takes FP32"),
    "too few elements": (changed("dense", data=[0.5]), 400, "26 elements"),
    "too many elements": (changed("dense", data=[0.5] * 27), 400, "more than 26 elements"),
    "an element of text": (element("dense", 0, '"1"'), 400, '"dense"'),
    "an element of nothing": (element("dense", 3, "null"), 400, '"dense"'),
    "an element of truth": (element("sparse", 3, "true"), 400, "element 3"),
    "an element with elements": (element("sparse", 3, '{"a":1}'), 400, '"sparse"'),
    "NaN": (element("dense", 0, "NaN"), 400, "not an infer request"),
    "infinity": (element("dense", 0, "1e999"), 400, '"dense"'),
    "too large for the type": (element("dense", 1, "1e39"), 400, "fits FP32"),
    "an id beyond": (element("sparse", 25, "99999"), 400, "id 99999 at element 25 (column 25), outside its vocabulary of 2025"),
    "an id below": (element("sparse", 0, "-1"), 400, "id -1 at element 0"),
    "the smallest id": (element("sparse", 0, str(-(2**63))), 400, "outside its vocabulary"),
    "an id beyond 64 bits": (element("sparse", 0, str(2**63)), 400, "fits INT64"),
    "half an id": (element("sparse", 0, "1.5"), 400, "fits INT64"),
    "an unknown input": (with_tensors(DENSE, SPARSE, DENSE | {"name": "x"}), 400, '"x" is not one of dense, sparse'),
    "a missing input": (with_tensors(SPARSE), 400, 'input "dense" is missing'),
    "an input twice": (with_tensors(DENSE, SPARSE, SPARSE), 400, "is there twice"),
    "whole and in parts": (with_tensors(DENSE, SPARSE, part("sparse.user", 1, 20)), 400, "whole and in parts"),
    "one part of two": (with_tensors(DENSE, part("sparse.user", 1, 20)), 400, 'input "sparse.item" is missing'),
    "a part too narrow": (
        with_tensors(DENSE, part("sparse.user", 1, 20), part("sparse.item", 2, 5)), 400, "the model takes [-1, 6]",
    ),
    "users that fit no rows": (
        with_tensors(DENSE, part("sparse.user", 3, 20), part("sparse.item", 2, 6)), 400, "1, or 2",
    ),
    "an unknown output": (asked(outputs=[{"name": "x"}]), 400, '"x" is not one of the model\'s: score'),
    "an output twice": (asked(outputs=[{"name": "score"}] * 2), 400, "asked for twice"),
    "classification": (asked(outputs=[{"name": "score", "parameters": {"classification": 3}}]), 400, "classification"),
    "shared memory": (changed("dense", parameters={"shared_memory_region": "/etc/passwd"}), 400, "send the tensor"),
    "shared memory for an output": (
        asked(outputs=[{"name": "score", "parameters": {"shared_memory_region": "r"}}]), 400, "shared memory",
    ),
    "ids without top_k": (asked(outputs=[{"name": "ids"}]), 400, '"ids" is not one of'),
    "a negative top_k": (asked(parameters={"top_k": -1}), 400, "not an infer request"),
    "a top_k of text": (asked(parameters={"top_k": "5"}), 400, "not an infer request"),
    "a negative timeout": (asked(parameters={"timeout": -1}), 400, "not an infer request"),
    "a priority beyond 64 bits": (asked(parameters={"priority": 2**64}), 400, "not an infer request"),
    "data and a size": (changed("dense", parameters={"binary_data_size": 104}), 400, "both data and binary_data_size"),
    "neither data nor a size": (changed("dense", remove=("data",)), 400, "neither data nor binary_data_size"),
    "a size of nothing": (
        changed("dense", remove=("data",), parameters={"binary_data_size": 104}), 400, "0 bytes are left of the body",
    ),
    "a size that is not the shape's": (binary({"dense": 100}), 400, "binary_data_size is 100"),
    "a size of all memory": (binary({"dense": 2**63}), 400, "binary_data_size is 9223372036854775808"),
    "a negative size": (binary({"dense": -1}), 400, "not an infer request"),
    "cut tensors": (binary(cut=1), 400, "bytes are left of the body"),
    "more behind the tensors": (binary(tail=b"x"), 400, "1 bytes are left after the last binary tensor"),
    "NaN in binary": (binary(dense=np.nan), 400, '"dense" has NaN or infinity at element 0'),
    "an id beyond in binary": (binary(sparse=10**9), 400, "id 1000000000 at element 0"),
    "a header length beyond the body": (binary(length=10**9), 400, "send the length of the JSON part"),
    "a header length in the middle": (binary(length=20), 400, "not an infer request"),
    "a header length of 0": (binary(length=0), 400, "not an infer request"),
    "a negative header length": (binary(length=-1), 400, "Inference-Header-Content-Length is not a number"),
    "a header length of text": (binary(length="all"), 400, "Inference-Header-Content-Length is not a number"),
    "a header length beyond 64 bits": (binary(length=2**64), 400, "Inference-Header-Content-Length is not a number"),
}  # fmt: skip

BOMB = gzip.compress(b"\0" * (64 << 20))
CLOSE = {"Connection": "close"}
HEADS = {
    "a gzip bomb": (post(BOMB, Content_Encoding="gzip"), 415, "send the body as it is"),
    "another encoding": (post(b"{}", Content_Encoding="br"), 415, "Content-Encoding"),
    "another model": (head(0, "/v2/models/x/infer", **CLOSE), 404, f'"{NAME}" is'),
    "another version": (head(0, f"/v2/models/{NAME}/versions/9/infer", **CLOSE), 404, '"1" is served'),
    "GET": (head(path=INFER, method="GET", **CLOSE), 405, "POST"),
    "DELETE": (head(path=f"/v2/models/{NAME}", method="DELETE", **CLOSE), 405, "DELETE is not allowed"),
    "a method nobody knows": (head(method="BREW", **CLOSE), 405, "BREW is not allowed"),
    "loading a model": (head(0, f"/v2/repository/models/{NAME}/load", **CLOSE), 404, "no path of the protocol"),
    "registering shared memory": (head(0, "/v2/systemsharedmemory/region/r/register", **CLOSE), 404, "no path"),
    "up and out": (head(path="/v2/../../etc/passwd", method="GET", **CLOSE), 404, "no path of the protocol"),
    "up and out, encoded": (head(path="/v2/models/%2e%2e%2f%2e%2e/config", method="GET", **CLOSE), 404, "not served here"),
    "two slashes": (head(path=f"//v2//models//{NAME}", method="GET", **CLOSE), 404, "no path of the protocol"),
    "an encoded slash": (head(0, f"/v2/models/{NAME}%2Finfer", **CLOSE), 405, "not allowed"),
    "an encoded zero": (head(0, f"/v2/models/{NAME}%00/infer", **CLOSE), 404, "not served here"),
    "a slash at the end": (head(0, INFER + "/", **CLOSE), 404, "no path of the protocol"),
    "a path of 100 KB": (head(path="/" + "a" * 100_000, method="GET", **CLOSE), 431, ""),
    "a length beyond the limit": (head(LIMIT + 1), 413, f"larger than {LIMIT} bytes"),
    "a length beyond memory": (head(2**63 - 1), 413, "split the request"),
    "chunks beyond the limit": (chunked(chunk(b"x" * (1 << 20)) * 48, chunk(b"x")), 413, "split the request"),
    "a length that is not sent": (head(100) + b"{", 408, "send it faster"),
    "a chunk that is not sent": (chunked(b"64\r\n{"), 408, "send it faster"),
    "a length of text": (head("many"), 400, ""),
    "a negative length": (head(-1), 400, ""),
    "a length with a sign": (head("+5") + b"hello", 400, ""),
    "two lengths": (head(5, Content_length="6") + b"hello!", 400, ""),
    "two lengths in one": (head("5, 6") + b"hello!", 400, ""),
    "a length beyond 64 bits": (head(2**64), 400, ""),
    "an encoding that is not chunked": (head(Transfer_Encoding="gzip"), 400, ""),
    "chunked inside": (head(Transfer_Encoding="chunked, gzip"), 400, ""),
    "almost chunked": (head(Transfer_Encoding="xchunked"), 400, ""),
    "chunked in HTTP/1.0": (chunked(chunk(b"{}")).replace(b"HTTP/1.1", b"HTTP/1.0"), 400, ""),
    "a chunk size beyond 64 bits": (chunked(b"fffffffffffffffff\r\n"), 400, "the body ended early"),
    "a chunk size that is no number": (chunked(b"zz\r\nab\r\n0\r\n\r\n"), 400, "the body ended early"),
    "a negative chunk size": (chunked(b"-5\r\nhello\r\n0\r\n\r\n"), 400, "the body ended early"),
    "a chunk without an end": (chunked(b"2\r\n{}XX0\r\n\r\n"), 400, "the body ended early"),
    "extensions without end": (chunked(b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n"), 400, "the body ended early"),
    "trailers without end": (chunked(chunk(b"{}"), b"0\r\n", b"a: b\r\n" * 20_000, b"\r\n"), 400, "the body ended early"),
    "a head of 100 KB": (head(0, X="x" * 100_000), 431, ""),
    "a thousand headers": (head(0, **{f"X{index}": "" for index in range(1000)}), 431, ""),
    "a header without a colon": (head(0).replace(b"Host: x", b"Host x"), 400, ""),
    "a name with a blank": (head(0).replace(b"Host: x", b"Ho st: x"), 400, ""),
    "a blank before the colon": (head(0).replace(b"Content-Length:", b"Content-Length :"), 400, ""),
    "a folded header": (head(0).replace(b"Host: x", b"Host: x\r\n folded"), 400, ""),
    "a zero in a header": (head(0, X="a\0b"), 400, ""),
    "a version nobody knows": (head(0).replace(b"HTTP/1.1", b"HTTP/9.9"), 400, ""),
    "TLS": (bytes.fromhex("1603010200010001fc0303") + bytes(100) + b"\r\n\r\n", 400, ""),
    "noise": (bytes(range(128, 256)) + b"\r\n\r\n", 400, ""),
}  # fmt: skip


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


@pytest.mark.parametrize("name", BODIES | HEADS)
def test_over_http(attacked, name):
    sent, expected, said = (BODIES | HEADS)[name]
    answer = talk(attacked.runtime.port, sent)
    # One answer, and the connection is closed: what is behind it is never a request.
    assert status(answer) == expected and answer.count(b"HTTP/1.1 ") == 1, answer[:500]
    if said:
        assert said in json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    attacked.unharmed()


HIDDEN = b"GET /v2/hidden HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = {
    "a length, then chunks": head(5 + len(HIDDEN), Transfer_Encoding="chunked") + b"0\r\n\r\n" + HIDDEN,
    "chunks, then a length": head(Transfer_Encoding="chunked", Content_Length=3) + b"2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "two encodings": head(0, Transfer_Encoding="chunked", Transfer_encoding="identity") + b"0\r\n\r\n" + HIDDEN,
    "a tab before chunked": head(5 + len(HIDDEN), Transfer_Encoding="\tchunked") + b"0\r\n\r\n" + HIDDEN,
    "a length behind a blank": head(Content_Length=f" {len(HIDDEN)}", Transfer_Encoding="chunked") + b"0\r\n\r\n" + HIDDEN,
    "bare line feeds": b"POST /v2/x HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nContent-Length: 9\n\n0\r\n\r\n" + HIDDEN,
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
def test_nothing_is_smuggled(attacked, name):
    """A head that two servers could read in two ways: the connection ends with its one answer."""
    answer = talk(attacked.runtime.port, SMUGGLED[name])
    assert 400 <= status(answer) < 500 and answer.count(b"HTTP/1.1 ") == 1, answer
    attacked.unharmed()


def test_what_ends_early_has_no_answer_but_an_error(attacked):
    for sent in [head(100) + b'{"inputs"', chunked(b"64\r\n{"), head(100)[:-10], b"P", opened()]:
        answer = talk(attacked.runtime.port, sent, end=True)
        assert not answer or status(answer) == 400
    attacked.unharmed()


def test_after_all_that(attacked):
    assert len(BODIES) + len(HEADS) + len(SMUGGLED) >= 80
    assert not attacked.good.errors and min(attacked.good.answered.values()) > 100
    # The largest bodies at once, read and parsed.
    assert attacked.peak_bytes() < 6 * LIMIT
    attacked.leaves_nothing()
