"""The service that BentoML loads."""

import json
import os

import bentoml
import numpy as np
from scorer import Scorer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HEADER = "inference-header-content-length"
scorer = Scorer(os.environ["BENCH_MODEL"])


async def infer(request: Request) -> Response:
    body = await request.body()
    at = int(request.headers[HEADER])
    tensors = {}
    for given in json.loads(body[:at])["inputs"]:
        dtype, _ = scorer.inputs[given["name"]]
        size = given["parameters"]["binary_data_size"]
        tensors[given["name"]] = np.frombuffer(body, dtype, size // np.dtype(dtype).itemsize, at).reshape(given["shape"])
        at += size
    score = scorer(tensors)
    output = {
        "name": scorer.output, "datatype": "FP32", "shape": list(score.shape),
        "parameters": {"binary_data_size": score.nbytes},
    }  # fmt: skip
    head = json.dumps({"model_name": "ranker", "outputs": [output]}).encode()
    return Response(head + score.tobytes(), headers={HEADER: str(len(head))}, media_type="application/octet-stream")


@bentoml.service(traffic={"timeout": 60}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(Starlette(routes=[Route("/v2/models/ranker/infer", infer, methods=["POST"])]))
class Ranker:
    pass
