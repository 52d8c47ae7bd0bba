#!/usr/bin/env python3
"""Makes the corpus: models exported from PyTorch (TorchScript and dynamo, opsets 17 and 20), LightGBM and XGBoost,
each with the answers of ONNX Runtime beside it. Never run by CI.

    python -m venv V && V/bin/pip install -r requirements.txt && V/bin/python make.py [NAME]...

Writes NAME.EXPORTER-OPSET.onnx and .json; prints an export that PyTorch itself cannot make.
"""

import json
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
import trees
from models import MODELS

HERE = pathlib.Path(__file__).parent
LARGEST = 200_000
DATATYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}


def described(name, value):
    data = value.astype(float).tolist() if value.dtype == np.float32 else value.tolist()
    flat = np.array(data, dtype=object).ravel().tolist()
    return {"name": name, "datatype": DATATYPES[str(value.dtype)], "shape": list(value.shape), "data": flat}


def write(name, content, inputs):
    """The model, and what ONNX Runtime answers to `inputs`."""
    if len(content) > LARGEST:
        raise ValueError(f"{name} has {len(content)} bytes, more than {LARGEST}")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = zip(names, session.run(names, inputs))
    answers = {
        "inputs": [described(name, value) for name, value in inputs.items()],
        "outputs": [described(name, value) for name, value in outputs if isinstance(value, np.ndarray)],
    }
    (HERE / f"{name}.onnx").write_bytes(content)
    (HERE / f"{name}.json").write_text(json.dumps(answers) + "\n")
    operators = sorted({node.op_type for node in onnx.load_from_string(content).graph.node})
    print(f"{name}: {len(content)} bytes, {' '.join(operators)}")


def stripped(content):
    """Without what exporters note of the machine: paths and stack traces, in bodies of loops too."""
    model = onnx.load_from_string(content)
    strip(model)
    return model.SerializeToString(deterministic=True)


def strip(message):
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            # One message, or several.
            for part in [value] if hasattr(value, "ListFields") else value:
                strip(part)


def export(module, inputs, exporter, opset, path):
    names = list(inputs)
    common = {"input_names": names, "opset_version": opset, "dynamo": exporter == "dynamo"}
    if exporter == "dynamo":
        batch = torch.export.Dim("batch", min=2, max=65536)
        shapes = {name: {0: batch} for name in names}
        torch.onnx.export(
            module, tuple(inputs.values()), str(path), dynamic_shapes=shapes, external_data=False, verbose=False, **common
        )
    else:
        axes = {name: {0: "batch"} for name in names}
        torch.onnx.export(module, tuple(inputs.values()), str(path), dynamic_axes=axes, **common)


def make(name):
    build, samples = MODELS[name]
    for exporter, opset in [("torchscript", 17), ("torchscript", 20), ("dynamo", 17), ("dynamo", 20)]:
        torch.manual_seed(7)
        module, inputs = build().eval(), samples()
        path = HERE / f"{name}.{exporter}-{opset}.onnx"
        try:
            export(module, inputs, exporter, opset, path)
            content = stripped(path.read_bytes())
            path.unlink()
            write(path.stem, content, {name: value.numpy() for name, value in inputs.items()})
        except Exception as error:
            path.unlink(missing_ok=True)
            print(f"{path.stem}: no export: {type(error).__name__}: {str(error).splitlines()[0]}")


def main():
    warnings.filterwarnings("ignore")
    names = sys.argv[1:] or [*MODELS, *trees.TREES]
    for name in names:
        if name in MODELS:
            make(name)
        else:
            content, inputs = trees.TREES[name]()
            write(name, content, inputs)


if __name__ == "__main__":
    main()
