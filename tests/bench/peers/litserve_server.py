"""LitServe with ONNX Runtime. It takes JSON only: tensors travel as base64. One worker a core, and its fast queue."""

import base64

import arguments
import litserve
import numpy as np
from scorer import Scorer


class Ranker(litserve.LitAPI):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def setup(self, device):
        self.scorer = Scorer(self.path)

    def decode_request(self, request):
        decoded = {}
        for name, text in request.items():
            dtype, shape = self.scorer.inputs[name]
            decoded[name] = np.frombuffer(base64.b64decode(text), dtype).reshape(-1, *shape)
        return decoded

    def predict(self, tensors):
        return self.scorer(tensors)

    def encode_response(self, score):
        return {"score": base64.b64encode(score.tobytes()).decode()}


if __name__ == "__main__":
    given = arguments.read()
    server = litserve.LitServer(
        Ranker(given.model), accelerator="cpu", workers_per_device=given.cores, fast_queue=True, timeout=60
    )
    server.run(
        host="127.0.0.1", port=given.http, num_api_servers=1, generate_client_file=False, log_level="error",
        access_log=False,
    )  # fmt: skip
