"""What Keras's guides do, in their words and on small data (../keras_guides), run with `keras` and
`tf` as Keras and TensorFlow, or both as onnxtape.

A guide keeps what is compared in `R`: losses, outputs, what it has printed. The names that it does
not make itself are in `_names`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, numpy

GUIDES = Path(__file__).parents[1] / "keras_guides"


def _data(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng((seed, *shape)).uniform(-2, 2, shape).astype("float32")


def _labels(count: int, classes: int) -> Any:
    return np.random.default_rng((count, classes)).integers(0, classes, count)


def _same(model: Any, seed: int = 3) -> None:
    """Give a model numbers as large as Glorot's that depend on the seed."""
    weights = []
    for i, w in enumerate(model.weights):
        shape = tuple(w.shape)
        field = np.prod(shape[:-2]) * sum(shape[-2:])
        bound = np.sqrt(6 / field) if len(shape) > 1 else 0.05
        value = np.random.default_rng((seed + i, *shape)).uniform(-bound, bound, shape)
        weights.append(np.abs(value) + 0.5 if "variance" in w.name else value)
    model.set_weights([w.astype("float32") for w in weights])


def _names(k: Any, folder: str) -> dict[str, Any]:
    def out(name: str) -> str:
        if k.__name__ != "keras":
            name = name.replace(".keras", ".onnxtape").replace(".png", ".svg")
        return os.path.join(folder, name)

    tf = k
    if k.__name__ == "keras":
        import tensorflow as tf

        # It needs Graphviz.
        k.utils.plot_model = lambda *args, **kwargs: None
    return {
        "keras": k, "tf": tf, "layers": k.layers, "ops": k.ops, "np": np, "os": os,
        "data": _data, "labels": _labels, "same": _same, "out": out, "R": {},
    }  # fmt: skip


def _run(k: Any, guide: str) -> Arrays:
    path = GUIDES / f"{guide}.py"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Keras warns of other things, and none is of interest here.
        warnings.simplefilter("ignore")
        names = _names(k, folder)
        exec(compile(path.read_text("utf-8"), str(path), "exec"), names)
    return {name: _array(value) for name, value in names["R"].items()}


def _array(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return np.array(value)
    several = isinstance(value, (list, tuple))
    array = np.concatenate([numpy(x).ravel() for x in value]) if several else numpy(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


PROGRAMS: dict[str, Program] = {
    path.stem: partial(_run, guide=path.stem) for path in sorted(GUIDES.glob("*.py"))
}
