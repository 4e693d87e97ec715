"""ONNX models as text, against ONNX Runtime and differences that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, parser

import onnxtape as ot

ops = ot.ops
RNG = np.random.default_rng(3)
X = RNG.normal(size=(5, 4))
WEIGHTS = {"w": RNG.normal(size=(4, 4)) * 0.5, "b": RNG.normal(size=4)}


def parsed(text: str) -> onnx.ModelProto:
    model = parser.parse_model(text)
    used = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    for name, array in WEIGHTS.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def run(model: onnx.ModelProto | Path, feeds: dict[str, Any]) -> list[Any]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return list(ort.InferenceSession(source).run(None, feeds))


def check_outputs_and_gradients(
    proto: onnx.ModelProto, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Eagerly and compiled; gradients along a random direction of each weight."""
    model = ot.load_onnx(proto)

    def gradients(feeds: Any, seeds: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(feeds)
            outputs = list(y) if isinstance(y, tuple) else [y]
            loss = sum(ops.sum(o * s) for o, s in zip(outputs, seeds, strict=True))
        return outputs, tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")

    compiled = ot.function(gradients, fallback="error")
    for call in calls:
        feeds = {"x": X, **call}
        expected = run(proto, feeds)
        seeds = [np.random.default_rng(8).normal(size=np.shape(y)) for y in expected]

        def loss(feeds: Any = feeds, seeds: Any = seeds) -> float:
            made = run(model.save_onnx(tmp_path / "net.onnx"), feeds)
            return sum(float((y * s).sum()) for y, s in zip(made, seeds, strict=True))

        slopes = []
        for variable in model.trainable_variables:
            value, direction, sides = variable.numpy(), direction_of(variable), []
            step = 1e-5 if value.dtype == np.float64 else 1e-3
            for shift in (step, -step):
                variable.assign(value + shift * direction)
                sides.append(loss())
            variable.assign(value)
            slopes.append((sides[0] - sides[1]) / (2 * step))
        for way in (gradients, compiled):
            outputs, found = way(feeds, seeds)
            for y, e in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(y, e, rtol=1e-10)
            directions = map(direction_of, model.trainable_variables)
            along = [
                float((np.asarray(g) * d).sum()) for g, d in zip(found, directions, strict=True)
            ]
            np.testing.assert_allclose(along, slopes, rtol=3e-4, atol=1e-6)


def direction_of(variable: Any) -> Any:
    return np.random.default_rng(5).normal(size=variable.shape)
