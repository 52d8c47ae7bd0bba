"""PyTriton: Triton's server with this Python process behind it; V2 over HTTP (binary) and gRPC, one instance a core."""

import logging
import os
import sysconfig

import arguments
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from scorer import Scorer


def instance(path: str):
    scorer = Scorer(path)

    @batch
    def infer(**tensors):
        return [scorer(tensors).reshape(-1, 1)]

    return infer


def main() -> None:
    given = arguments.read()
    # Triton's Python must be this one and not another of the same version that the loader finds first.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    logging.disable(logging.WARNING)
    described = Scorer(given.model)
    inputs = [Tensor(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in described.inputs.items()]
    outputs = [Tensor(name=described.output, dtype=np.float32, shape=(1,))]
    config = TritonConfig(
        http_port=given.http, grpc_port=given.grpc, allow_metrics=False, http_address="127.0.0.1",
        grpc_address="127.0.0.1", log_verbose=0,
    )  # fmt: skip
    with Triton(config=config) as triton:
        triton.bind(
            model_name="ranker", infer_func=[instance(given.model) for _ in range(given.cores)], inputs=inputs,
            outputs=outputs, config=ModelConfig(max_batch_size=4096),
        )  # fmt: skip
        triton.serve()


if __name__ == "__main__":
    main()
