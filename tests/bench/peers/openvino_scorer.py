"""OpenVINO in process, on the CPU: a model's scores from its inputs by name."""

import numpy as np
import openvino

PRECISIONS = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenVinoScorer:
    """`precision` is `f32` or `bf16`, and what the model is then computed in: OpenVINO takes it for a hint, and f32 for all where
    the machine has no other."""

    def __init__(self, path: str, output: str, threads: int, precision: str):
        asked = {
            "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }  # fmt: skip
        compiled = openvino.Core().compile_model(path, "CPU", asked)
        taken = compiled.get_property("INFERENCE_PRECISION_HINT")
        if taken != PRECISIONS[precision]:
            raise RuntimeError(f"asked for {precision}, OpenVINO computes in {taken} here")
        self.request, self.output = compiled.create_infer_request(), output

    def __call__(self, tensors: dict) -> np.ndarray:
        return self.request.infer(tensors, share_inputs=True, share_outputs=True)[self.output]
