"""KServe's model server with ONNX Runtime: V2 over HTTP (binary) and gRPC; one worker process a core. Its HTTP
door makes Python lists of binary tensors and arrays of these again; gRPC is its fast one."""

import arguments
import kserve
from kserve import InferOutput, InferRequest, InferResponse
from scorer import Scorer


class Ranker(kserve.Model):
    def __init__(self, path: str):
        super().__init__("ranker")
        # Workers are given a copy of this object, which must not hold a session yet.
        self.path, self.scorer, self.ready = path, None, True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        self.scorer = self.scorer or Scorer(self.path)
        score = self.scorer({given.name: given.as_numpy() for given in payload.inputs})
        output = InferOutput(self.scorer.output, list(score.shape), "FP32")
        output.set_data_from_numpy(score, binary_data=True)
        return InferResponse(payload.id or "bench", self.name, [output])


if __name__ == "__main__":
    given = arguments.read()
    server = kserve.ModelServer(
        http_port=given.http, grpc_port=given.grpc, workers=given.cores, enable_docs_url=False, access_log_format=None
    )
    server.start([Ranker(given.model)])
