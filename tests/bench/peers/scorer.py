"""ONNX Runtime as every peer of the benchmark uses it."""

import numpy as np
import onnxruntime


def open_session(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin for work would take the CPU from the server around them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Scorer:
    """A model's scores from its inputs by name."""

    def __init__(self, path: str, threads: int = 1):
        self.session = open_session(path, threads)
        dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
        self.inputs = {
            given.name: (dtypes[given.type], [size for size in given.shape[1:]]) for given in self.session.get_inputs()
        }
        self.output = next(given.name for given in self.session.get_outputs() if given.type == "tensor(float)")

    def __call__(self, tensors: dict) -> np.ndarray:
        return self.session.run([self.output], tensors)[0]
