"""The requests' content: lists of candidates for a model, at random but the same in every run."""

from dataclasses import dataclass, field

import numpy as np

# Requests differ in popularity of their ids as traffic does: the k-th most frequent one is asked for in proportion to k^-s.
ZIPF_EXPONENT = 1.05
FLOATS = {"FP32": np.float32, "FP64": np.float64}
INTEGERS = {"INT64": np.int64, "INT32": np.int32, "UINT8": np.uint8, "INT8": np.int8, "INT16": np.int16}


@dataclass(frozen=True)
class Input:
    name: str
    datatype: str
    # Without the first dimension.
    shape: tuple[int, ...]
    # Ids: sizes of the vocabularies, one for all columns or one a column. Without them ids are 0.
    vocabularies: tuple[int, ...] = ()
    # Columns that belong to the request and not to the candidate, as ranges; `None`: none, `()`: all.
    once: tuple[tuple[int, int], ...] | None = None

    @property
    def dtype(self):
        return bool if self.datatype == "BOOL" else (FLOATS | INTEGERS)[self.datatype]


@dataclass
class Ids:
    """Draws ids of one vocabulary."""

    size: int
    uniform: bool
    cumulated: np.ndarray = field(init=False)
    ids: np.ndarray = field(init=False)

    def __post_init__(self):
        weights = np.arange(1, self.size + 1, dtype=np.float64) ** -(0.0 if self.uniform else ZIPF_EXPONENT)
        self.cumulated = np.cumsum(weights / weights.sum())
        # Frequent ids lie anywhere in the table, not side by side at its start.
        self.ids = np.random.default_rng(self.size).permutation(self.size)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        ranks = np.searchsorted(self.cumulated, rng.random(count))
        return self.ids[np.minimum(ranks, self.size - 1)]


class Lists:
    """Makes the lists of a model; `kind` is `random` (all pairs differ) or `list` (one user, many candidates)."""

    def __init__(self, inputs: list[Input], uniform: bool = False):
        self.inputs = inputs
        sizes = {size for given in inputs for size in given.vocabularies}
        self.ids = {size: Ids(size, uniform) for size in sizes}

    def make(self, kind: str, rows: int, count: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng([rows, kind == "list"])
        return [{given.name: self.tensor(rng, given, kind, rows) for given in self.inputs} for _ in range(count)]

    def tensor(self, rng: np.random.Generator, given: Input, kind: str, rows: int) -> np.ndarray:
        values = self.values(rng, given, rows)
        if kind == "list" and given.once is not None:
            if given.once == ():
                values[:] = values[0]
            for start, end in given.once:
                values[:, start:end] = values[0, start:end]
        return values

    def values(self, rng: np.random.Generator, given: Input, rows: int) -> np.ndarray:
        shape = (rows, *given.shape)
        if given.datatype in FLOATS:
            return rng.normal(0, 1, shape).astype(given.dtype)
        if not given.vocabularies:
            return np.zeros(shape, given.dtype)
        if len(given.vocabularies) == 1:
            drawn = self.ids[given.vocabularies[0]].draw(rng, int(np.prod(shape)))
            return drawn.reshape(shape).astype(given.dtype)
        columns = [self.ids[size].draw(rng, rows) for size in given.vocabularies]
        return np.stack(columns, axis=1).astype(given.dtype)


def once(inputs: list[Input], tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same list with what belongs to the request once: `NAME`, or `NAME.user` and `NAME.item`."""
    result = {}
    for given in inputs:
        values = tensors[given.name]
        if given.once is None:
            result[given.name] = values
        elif given.once == ():
            result[given.name] = values[:1]
        else:
            user = [column for start, end in given.once for column in range(start, end)]
            item = [column for column in range(values.shape[1]) if column not in user]
            result[f"{given.name}.user"] = np.ascontiguousarray(values[:1, user])
            result[f"{given.name}.item"] = np.ascontiguousarray(values[:, item])
    return result
