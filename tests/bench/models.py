"""The model folders that are measured, and what the benchmark must know of a model."""

import pathlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from bench.lists import Ids, Input, Lists, once

MODELS = pathlib.Path(__file__).resolve().parents[1] / "models"
sys.path.insert(0, str(MODELS))
import make_light_ranker as light  # noqa: E402
import make_small_ranker as small  # noqa: E402

NAMES = {
    TensorProto.FLOAT: "FP32", TensorProto.DOUBLE: "FP64", TensorProto.INT64: "INT64", TensorProto.INT32: "INT32",
    TensorProto.INT16: "INT16", TensorProto.INT8: "INT8", TensorProto.UINT8: "UINT8", TensorProto.BOOL: "BOOL",
}  # fmt: skip
ONCE = re.compile(r"^(?P<name>[^\[]+)(?:\[(?P<ranges>\d+:\d+(?:,\d+:\d+)*)\])?$")
# What belongs to the user in the small ranker.
SMALL_RANKER_ONCE = ["dense", "sparse[0:20]"]
# 16.6 million rows of 64 bytes, which no cache holds.
BIG_TABLE_FACTOR = 500
# Of `pinnace-runtime check`, for products in bf16.
BF16_TOLERANCE = 0.01
LIGHT_RANKER_ITEMS = 1_000_000


class BadModel(Exception):
    """The folder cannot be measured; the message says why, and what to do."""


@dataclass(frozen=True)
class Model:
    folder: pathlib.Path
    inputs: list[Input]
    output: str
    uniform: bool = False
    # Of one request, as config.yaml allows them.
    max_rows: int = 4096
    # How far its scores may be from ONNX Runtime's; f32 sums in another order differ in the last bits.
    tolerance: float = 1e-4

    @property
    def path(self) -> pathlib.Path:
        return self.folder / "model.onnx"

    @property
    def once(self) -> list[str]:
        """As the runtime's `requestInputs` and the optimizer's `--once` take it."""
        declared = [given for given in self.inputs if given.once is not None]
        ranges = lambda given: ",".join(f"{start}:{end}" for start, end in given.once)  # noqa: E731
        return [given.name + (f"[{ranges(given)}]" if given.once else "") for given in declared]

    def lists(self) -> Lists:
        return Lists(self.inputs, self.uniform)

    def sent_once(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A list in the fewest bytes that the model's declarations allow."""
        return once(self.inputs, tensors)

    def scores(self, scorer, tensors: dict[str, np.ndarray]) -> np.ndarray:
        """What is to be answered; `scorer` is ONNX Runtime as peers use it."""
        return scorer(str(self.path))(tensors)


class LightRanker(Model):
    """Items are in a table, and named by their ids."""

    def lists(self) -> "LightLists":
        return LightLists(self.folder)

    def sent_once(self, tensors):
        return {name: tensors[name][:1] for name in ("user_dense", "user_ids")} | {"item": tensors["item"]}

    def scores(self, scorer, tensors):
        session = scorer(str(self.path)).session
        heads = session.run(light.HEADS, {name: values for name, values in tensors.items() if name != "item"})
        return light.utility(dict(zip(light.HEADS, heads)))


class LightLists:
    """One user, and items by their popularity."""

    def __init__(self, folder: pathlib.Path):
        self.items = {file.stem: np.load(file, mmap_mode="r") for file in (folder / "items").iterdir()}
        self.ids = Ids(len(self.items["item"]), uniform=False)

    def make(self, _kind: str, rows: int, count: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(rows)
        return [self.one(rng, rows) for _ in range(count)]

    def one(self, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        drawn = self.ids.draw(rng, rows)
        repeated = {name: np.repeat(values, rows, axis=0) for name, values in light.user(rng).items()}
        return repeated | {name: values[drawn] for name, values in self.items.items()}


def read(folder: pathlib.Path, declared: list[str] | None = None) -> Model:
    """`declared`: what belongs to the request, where config.yaml does not say it."""
    if not (folder / "model.onnx").is_file():
        raise BadModel(f"{folder}: no model.onnx in it; give a model folder, as docs/reference/runtime.md describes it")
    if not (folder / "manifest.json").is_file():
        raise BadModel(f"{folder}: no manifest.json in it, so the runtime would refuse the folder")
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    config_file = folder / "config.yaml"
    config = (yaml.safe_load(config_file.read_text()) if config_file.is_file() else None) or {}
    once = parse_once(config.get("requestInputs") or declared or [])
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [
        read_input(value, config.get("inputs", {}).get(value.name, {}), once)
        for value in graph.input
        if value.name not in constants
    ]
    if unknown := once.keys() - {given.name for given in inputs}:
        raise BadModel(f"requestInputs names {sorted(unknown)}, which are no inputs of the model")
    scores = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    if not scores:
        raise BadModel(f"{folder}: no output of type float to compare")
    return Model(folder, inputs, scores[0], max_rows=config.get("maxBatchSize", 4096))


def read_input(value, config: dict, once: dict) -> Input:
    tensor = value.type.tensor_type
    datatype = NAMES.get(tensor.elem_type)
    if datatype is None:
        raise BadModel(f"input {value.name}: its element type is not served; export it as float or integer")
    first, *rest = tensor.shape.dim
    if first.HasField("dim_value"):
        raise BadModel(f"input {value.name}: its first dimension is fixed; export the model with a dynamic one")
    if any(not dim.dim_value for dim in rest):
        raise BadModel(f"input {value.name}: only its first dimension may be dynamic; fix the others for the benchmark")
    vocabularies = tuple(config.get("vocabularies") or ())
    shape = tuple(dim.dim_value for dim in rest)
    if len(vocabularies) > 1 and shape != (len(vocabularies),):
        raise BadModel(f"input {value.name}: {len(vocabularies)} vocabularies for columns of shape {shape}")
    return Input(value.name, datatype, shape, vocabularies, once.get(value.name))


def parse_once(declared: list[str]) -> dict[str, tuple]:
    parsed = {}
    for text in declared:
        match = ONCE.match(text)
        if not match:
            raise BadModel(f"requestInputs: {text!r} is neither NAME nor NAME[START:END,...]")
        ranges = (match["ranges"] or "").split(",")
        parsed[match["name"]] = tuple(tuple(map(int, part.split(":"))) for part in ranges if part)
    return parsed


def small_ranker(folder: pathlib.Path) -> Model:
    make("make_small_ranker.py", folder)
    return read(folder, SMALL_RANKER_ONCE)


def big_table(folder: pathlib.Path) -> Model:
    """The small ranker with a table that does not fit into caches; its ids are uniform, so that rows come from memory."""
    make("make_small_ranker.py", folder, "--table-factor", str(BIG_TABLE_FACTOR))
    return replace(read(folder, SMALL_RANKER_ONCE), uniform=True)


def light_ranker(folder: pathlib.Path, items: int = LIGHT_RANKER_ITEMS) -> LightRanker:
    make("make_light_ranker.py", folder, "--items", str(items))
    model = read(folder)
    return LightRanker(model.folder, model.inputs, "utility", max_rows=model.max_rows)


def dcnv2(folder: pathlib.Path) -> Model:
    make("make_dcnv2.py", folder)
    return read(folder)


def make(script: str, folder: pathlib.Path, *flags: str) -> None:
    """Once: what is there and whole is taken as it is."""
    if not (folder / "manifest.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, MODELS / script, folder, *flags], check=True, stdout=subprocess.DEVNULL)


def without_arithmetic(model: Model, folder: pathlib.Path) -> Model:
    """The same inputs and shapes with next to no work: what serving itself costs. The answer is a column of the first
    float input; all other inputs are read from the wire and dropped."""
    floats = [given for given in model.inputs if given.datatype == "FP32" and len(given.shape) == 1]
    if not floats:
        raise BadModel("no input of floats with two dimensions, so there is no server without a model to compare with")
    nodes = [
        helper.make_node("Gather", [floats[0].name, "first"], ["column"], axis=1),
        helper.make_node("Identity", ["column"], ["score"]),
    ]
    kinds = {name: kind for kind, name in NAMES.items()}
    inputs = [
        helper.make_tensor_value_info(given.name, kinds[given.datatype], ["pairs", *given.shape])
        for given in model.inputs
    ]
    output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["pairs"])
    first = numpy_helper.from_array(np.array(0, np.int64), "first")
    graph = helper.make_graph(nodes, "without_arithmetic", inputs, [output], [first])
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="pinnace")
    built.ir_version = 8
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(built, folder / "model.onnx")
    (folder / "config.yaml").write_text("device: cpu\nmaxBatchSize: 4096\n")
    small.write_manifest(folder)
    return replace(model, folder=folder, output="score")


def configured(model: Model, folder: pathlib.Path, **keys) -> Model:
    """The same model with more in its config.yaml."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model.folder, folder)
    file = folder / "config.yaml"
    config = (yaml.safe_load(file.read_text()) if file.is_file() else None) or {}
    file.write_text(yaml.safe_dump(config | keys))
    small.write_manifest(folder)
    return replace(model, folder=folder)


def in_bf16(model: Model, folder: pathlib.Path) -> Model:
    """The same model with products in bf16."""
    return replace(configured(model, folder, precision="bf16"), tolerance=BF16_TOLERANCE)


def light_in_bf16(model: LightRanker, folder: pathlib.Path) -> LightRanker:
    """The rows of the table too; the utility sums up what its heads differ by."""
    table = yaml.safe_load((model.folder / "config.yaml").read_text())["itemTable"] | {"precision": "bf16"}
    rounded = configured(model, folder, precision="bf16", itemTable=table)
    return replace(rounded, tolerance=BF16_TOLERANCE * sum(map(abs, light.UTILITY.values())))
