"""How a list travels: encoded once before anything is measured, for the file that `pinnace-runtime bench` reads."""

import base64
import json
import pathlib
import struct

import numpy as np

DATATYPES = {
    "float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "int16": "INT16", "int8": "INT8",
    "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
BINARY_HEADER = "inference-header-content-length"


class V2Http:
    """Open Inference Protocol over HTTP with the binary tensor extension."""

    protocol = "http"
    name = "V2 HTTP, binary"

    def __init__(self, model: str, output: str, top_k: int | None = None):
        """`top_k`: Pinnace's extension, by which the answer holds the ids and scores of the best only."""
        self.model, self.output, self.top_k = model, output, top_k

    def encode(self, tensors: dict[str, np.ndarray]) -> tuple[str, dict, bytes]:
        inputs = [
            {
                "name": name, "shape": list(values.shape), "datatype": DATATYPES[values.dtype.name],
                "parameters": {"binary_data_size": values.nbytes},
            }
            for name, values in tensors.items()
        ]  # fmt: skip
        names = [self.output, "ids"] if self.top_k else [self.output]
        request = {
            "inputs": inputs,
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in names],
        } | ({"parameters": {"top_k": self.top_k}} if self.top_k else {})
        head = json.dumps(request, separators=(",", ":")).encode()
        headers = {BINARY_HEADER: str(len(head)), "content-type": "application/octet-stream"}
        body = head + b"".join(values.tobytes() for values in tensors.values())
        return f"/v2/models/{self.model}/infer", headers, body

    def decode(self, headers, content: bytes) -> np.ndarray:
        length = int(headers[BINARY_HEADER]) if BINARY_HEADER in headers else len(content)
        # The scores come first, as they were asked for first.
        output = json.loads(content[:length])["outputs"][0]
        if output["name"] != self.output:
            raise ValueError(f"the first output is {output['name']}, not {self.output}")
        if "data" in output:
            return np.array(output["data"], np.float32)
        dtype = {"FP32": np.float32, "FP64": np.float64}[output["datatype"]]
        return np.frombuffer(content, dtype, int(np.prod(output["shape"])), length)

    def expected(self, scores: np.ndarray) -> np.ndarray:
        return np.sort(scores)[::-1][: self.top_k] if self.top_k else scores


class V2Grpc:
    """Open Inference Protocol over gRPC with raw contents."""

    protocol = "grpc"
    name = "V2 gRPC, raw"
    path = "/inference.GRPCInferenceService/ModelInfer"

    def __init__(self, model: str, output: str):
        self.model, self.output = model, output

    def encode(self, tensors: dict[str, np.ndarray]) -> tuple[str, dict, bytes]:
        from tritonclient.grpc import service_pb2

        message = service_pb2.ModelInferRequest(model_name=self.model)
        message.outputs.add(name=self.output)
        for name, values in tensors.items():
            message.inputs.add(name=name, datatype=DATATYPES[values.dtype.name], shape=values.shape)
            message.raw_input_contents.append(values.tobytes())
        return self.path, {}, message.SerializeToString()

    def decode(self, _headers, content: bytes) -> np.ndarray:
        from tritonclient.grpc import service_pb2

        answer = service_pb2.ModelInferResponse.FromString(content)
        index = [output.name for output in answer.outputs].index(self.output)
        if answer.raw_output_contents:
            return np.frombuffer(answer.raw_output_contents[index], np.float32)
        return np.array(answer.outputs[index].contents.fp32_contents, np.float32)

    def expected(self, scores: np.ndarray) -> np.ndarray:
        return scores


class Base64Json:
    """For servers that only take JSON: the tensors' bytes, so that no number is printed and parsed."""

    protocol = "http"
    name = "JSON, base64"

    def __init__(self, path: str):
        self.path = path

    def encode(self, tensors: dict[str, np.ndarray]) -> tuple[str, dict, bytes]:
        text = {name: base64.b64encode(values.tobytes()).decode() for name, values in tensors.items()}
        return self.path, {"content-type": "application/json"}, json.dumps(text).encode()

    def decode(self, _headers, content: bytes) -> np.ndarray:
        return np.frombuffer(base64.b64decode(json.loads(content)["score"]), np.float32)

    def expected(self, scores: np.ndarray) -> np.ndarray:
        return scores


def ask(wire, address: str, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """One list, for the check of the answers."""
    path, headers, body = wire.encode(tensors)
    if wire.protocol == "http":
        import requests

        answer = requests.post(f"http://{address}{path}", data=body, headers=headers, timeout=60)
        if answer.status_code != 200:
            raise RuntimeError(f"HTTP {answer.status_code}: {answer.text[:300]}")
        return wire.decode(answer.headers, answer.content)
    import grpc

    limits = [("grpc.max_receive_message_length", 64 << 20)]
    with grpc.insecure_channel(address, options=limits) as channel:
        call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        return wire.decode({}, call(body, timeout=60))


def write(file: pathlib.Path, wire, lists: list[dict[str, np.ndarray]], pairs: int) -> None:
    with open(file, "wb") as out:
        for tensors in lists:
            path, headers, body = wire.encode(tensors)
            head = json.dumps({"path": path, "headers": headers, "pairs": pairs}).encode()
            for part in (head, body):
                out.write(struct.pack("<I", len(part)))
                out.write(part)
