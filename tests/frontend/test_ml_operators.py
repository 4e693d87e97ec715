"""Operators of ai.onnx.ml: as ONNX Runtime's kernels compute them, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

import onnxtape as ot
from onnxtape.errors import ModelError

X = np.array([[1.0, -3.0, 2.0], [0.5, 0.25, 4.0], [-1.0, -2.0, -0.5]], "f")
W = "float[3,3] w = {1.0, 0.5, -0.25, 2.0, -1.0, 0.75, 0.5, 1.5, -2.0}"


def model_of(body: str, inputs: str = "float[N,3] x", outputs: str = "float[N,M] y") -> Any:
    header = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>'
    return parser.parse_model(f"{header} g ({inputs}) => ({outputs}) <{W}> {{ {body} }}")


def by_onnx_runtime(proto: onnx.ModelProto, x: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(None, {"x": x})


BODIES = {
    "scaled": "h = MatMul(x, w) y = ai.onnx.ml.Scaler<offset=[1.0,2.0,3.0],scale=[2.0,3.0,1.0]>(h)",
    "shifted": "h = MatMul(x, w) y = ai.onnx.ml.Scaler<offset=[0.5],scale=[2.0]>(h)",
    **{
        norm: f'h = MatMul(x, w) y = ai.onnx.ml.Normalizer<norm="{norm}">(h)'
        for norm in ("L1", "L2", "MAX")
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_they_compute_what_onnx_runtime_does_and_have_gradients(body: str) -> None:
    proto = model_of(body)
    model = ot.load_onnx(proto)
    x = np.concatenate([X, np.zeros((1, 3), "f")])  # A row that has no norm.
    (expected,) = by_onnx_runtime(proto, x)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    (w,) = model.trainable_variables
    factor = np.random.default_rng(0).normal(size=expected.shape).astype("f")

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(model(x) * factor)
        return loss, tape.gradient(loss, w)

    _, gradient = step(x)
    start, direction = w.numpy(), np.random.default_rng(1).normal(size=w.shape).astype("f")
    losses = []
    for h in (1e-2, -1e-2):
        w.assign(start + h * direction)
        losses.append(float(step(x)[0]))
    along = float(np.vdot(gradient, direction))
    assert abs(along - (losses[0] - losses[1]) / 2e-2) < 1e-2 * abs(along) + 1e-3


def test_a_classifier_of_scikit_learn_gives_labels_and_trains() -> None:
    """As skl2onnx writes an MLPClassifier: doubles in; a label and probabilities out."""
    proto = model_of(
        """c = Cast<to=1>(x) h = MatMul(c, w) p = Softmax<axis=-1>(h)
        best = ArgMax<axis=1, keepdims=0>(p) classes = Constant<value = int64[3] {10, 20, 30}>()
        row = ai.onnx.ml.ArrayFeatureExtractor(classes, best)
        flat = Constant<value_ints=[-1]>() label = Reshape(row, flat)""",
        "double[N,3] x",
        "int64[N] label, float[N,3] p",
    )
    model = ot.load_onnx(proto)
    x = X.astype("f8")
    for got, expected in zip(model(x), by_onnx_runtime(proto, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    optimizer = ot.optimizers.Adam(0.1)

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            label, p = model(x)
            loss = -ot.ops.mean(ot.ops.log(p[:, 1]))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return label

    for _ in range(30):
        label = step(x)
    np.testing.assert_array_equal(label, [20, 20, 20])


@pytest.mark.parametrize(("shape", "places"), [((2, 4), [1, 3, 3]), ((2, 2, 4), [[0, 3]])])
def test_elements_of_the_last_axis(shape: tuple[int, ...], places: Any) -> None:
    sizes = ",".join("NMK"[: len(shape)])
    proto = model_of("y = ai.onnx.ml.ArrayFeatureExtractor(x, i)", f"float[{sizes}] x", "float y")
    index = onnx.numpy_helper.from_array(np.asarray(places), "i")
    proto.graph.initializer.append(index)
    x = np.random.default_rng(0).normal(size=shape).astype("f")
    (expected,) = by_onnx_runtime(proto, x)
    np.testing.assert_array_equal(ot.load_onnx(proto)(x), expected)


def test_models_that_keep_numbers_in_attributes_are_refused() -> None:
    proto = model_of("y = ai.onnx.ml.LinearRegressor<coefficients=[1.0,2.0,3.0]>(x)")
    with pytest.raises(ModelError, match=r"ai\.onnx\.ml::LinearRegressor.*MatMul and Add"):
        ot.load_onnx(proto)
