"""Low-rank adapters: what they compute, what is trained, and what is written back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot
from onnxtape.errors import VariableError
from onnxtape.interop import OnnxModel

RNG = np.random.default_rng(0)
W = RNG.normal(size=(6, 5)).astype("f")
BIAS = RNG.normal(size=5).astype("f")
X = RNG.normal(size=(4, 6)).astype("f")
IDS = np.int64([0, 3, 3, 5])
node = helper.make_node


def model_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, Any],
    x: tuple[int, Any] = (TensorProto.FLOAT, ["n", 6]),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


#: Name: the model, what it computes of x and of the (adapted) weight, x, and whether each product
#: has a low-rank one beside it.
CASES: dict[str, tuple[onnx.ModelProto, Callable[[Any, Any], Any], Any, bool]] = {
    "matmul": (
        model_of([node("MatMul", ["x", "w"], ["y"])], {"w": W}),
        lambda x, w: x @ w,
        X,
        True,
    ),
    "matmul of rank 3": (
        model_of([node("MatMul", ["x", "w"], ["y"])], {"w": W}, (TensorProto.FLOAT, ["n", "t", 6])),
        lambda x, w: x @ w,
        X.reshape(2, 2, 6),
        True,
    ),
    "gemm": (
        model_of(
            [node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
            {"w": W.T.copy(), "b": BIAS},
        ),
        lambda x, w: 0.5 * x @ w.T + 2 * BIAS,
        X,
        True,
    ),
    "gemm of a transposed input": (
        model_of(
            [node("Gemm", ["x", "w"], ["y"], transA=1)], {"w": W}, (TensorProto.FLOAT, [6, "n"])
        ),
        lambda x, w: x.T @ w,
        X.T.copy(),
        True,
    ),
    "transposed before": (
        model_of(
            [node("Transpose", ["w"], ["wt"], perm=[1, 0]), node("MatMul", ["x", "wt"], ["y"])],
            {"w": W.T.copy()},
        ),
        lambda x, w: x @ w.T,
        X,
        True,
    ),
    "used twice": (
        model_of(
            [
                node("MatMul", ["x", "w"], ["h"]),
                node("MatMul", ["h", "w"], ["y"]),
            ],
            {"w": W[:, :1] * W[:, :1].T},
        ),
        lambda x, w: x @ w @ w,
        X,
        True,
    ),
    "from the left": (
        model_of([node("MatMul", ["w", "x"], ["y"])], {"w": W}, (TensorProto.FLOAT, [5, "n"])),
        lambda x, w: w @ x,
        X[:, :5].T.copy(),
        False,
    ),
    "embedding and its transposition": (
        model_of(
            [
                node("Gather", ["w", "x"], ["e"]),
                node("Transpose", ["w"], ["wt"], perm=[1, 0]),
                node("MatMul", ["e", "wt"], ["y"]),
            ],
            {"w": W},
            (TensorProto.INT64, ["n"]),
        ),
        lambda x, w: w[x] @ w.T,
        IDS,
        False,
    ),
}


def adapted(case: str, **options: Any) -> tuple[OnnxModel, Any, Any]:
    """The model with an adapter that is not zero, x, and what the formula gives for A and B."""
    proto, formula, x, _ = CASES[case]
    model = ot.load_onnx(proto)
    assert model.add_lora("w", **{"rank": 2, "alpha": 3, **options}) == ["w"]
    b = model.adapter_state()["w.lora_B"]
    model.load_adapter_state(
        {**model.adapter_state(), "w.lora_B": RNG.normal(size=b.shape).astype("f")}
    )
    (w,) = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "w")

    def expected(a: Any, b: Any) -> Any:
        change = 1.5 * a @ b
        return formula(x.astype("d") if x.dtype == np.float32 else x, w + _fitted(change, w))

    return model, x, expected


def _fitted(change: Any, w: Any) -> Any:
    return change if change.shape == w.shape else change.T


def factors(model: OnnxModel) -> list[Any]:
    return [v.numpy().astype("d") for v in model.trainable_variables]


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_formula(case: str) -> None:
    model, x, expected = adapted(case)
    a, b = factors(model)
    assert [v.path for v in model.trainable_variables] == ["w.lora_A", "w.lora_B"]
    np.testing.assert_allclose(model(x), expected(a, b), rtol=1e-4, atol=1e-5)
    seed = RNG.normal(size=model(x).shape)

    @ot.function(fallback="error")
    def gradients(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(model(x) * seed.astype("f"))
        return tape.gradient(loss, model.trainable_variables)

    for place, found in enumerate(gradients(x)):
        direction = RNG.normal(size=found.shape)
        moved = [
            [f + (s * 1e-5 * direction if i == place else 0) for i, f in enumerate((a, b))]
            for s in (1, -1)
        ]
        up, down = (np.sum(expected(*pair) * seed) for pair in moved)
        np.testing.assert_allclose(
            np.sum(np.asarray(found) * direction), (up - down) / 2e-5, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("case", [name for name, (*_, direct) in CASES.items() if direct])
def test_no_gradient_has_the_weights_shape(case: str) -> None:
    proto, _, x, _ = CASES[case]
    model, _, _ = adapted(case, rank=1)

    @ot.function(fallback="error")
    def gradients(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(model(x) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    graph = onnx.shape_inference.infer_shapes(gradients.get_concrete_function(x).model).graph
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in graph.value_info
    }
    w = next(tuple(t.dims) for t in proto.graph.initializer if t.name == "w")
    # W itself may be turned around on the way back to earlier layers.
    made = {n.output[0] for n in graph.node if n.op_type != "Transpose"}
    assert len(shapes) > 3
    assert not [n for n in made if shapes.get(n) in (w, w[::-1]) and w != x.shape]


@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_at_first_and_the_file_keeps_its_graph(case: str, tmp_path: Path) -> None:
    proto, _, x, _ = CASES[case]
    fresh = ot.load_onnx(proto)
    before = np.asarray(fresh(x))
    fresh.add_lora("w")
    np.testing.assert_allclose(fresh(x), before, rtol=1e-6, atol=1e-6)

    model, x, expected = adapted(case)
    path = model.save_onnx(tmp_path / "merged.onnx")
    written = onnx.load(path)
    assert [n.op_type for n in written.graph.node] == [n.op_type for n in proto.graph.node]
    assert [t.name for t in written.graph.initializer] == [t.name for t in proto.graph.initializer]
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(found, expected(*factors(model)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, model(x), rtol=1e-4, atol=1e-4)


def classifier() -> OnnxModel:
    return ot.load_onnx(
        model_of(
            [
                node("Gemm", ["x", "body.weight", "body.bias"], ["h"]),
                node("Tanh", ["h"], ["t"]),
                node("MatMul", ["t", "head.weight"], ["y"]),
            ],
            {"body.weight": W, "body.bias": BIAS, "head.weight": W[:5, :3].copy()},
        )
    )


def test_training_moves_the_adapters_alone(tmp_path: Path) -> None:
    model = classifier()
    assert model.add_lora("*.weight", rank=2) == ["body.weight", "head.weight"]
    frozen = {v.path: v.numpy() for v in model.non_trainable_variables}
    assert set(frozen) == {"body.weight", "body.bias", "head.weight"}
    optimizer = ot.optimizers.Adam(0.05)

    @ot.function(fallback="error")
    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean((model(x) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    y = RNG.normal(size=(4, 3)).astype("f")
    losses = [float(step(X, y)) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    for v in model.non_trainable_variables:
        np.testing.assert_array_equal(v.numpy(), frozen[v.path])

    other = classifier()
    other.add_lora("*.weight", rank=2)
    other.load_adapter_state(model.adapter_state())
    np.testing.assert_array_equal(other(X), model(X))
    np.testing.assert_array_equal(model.truncate("t")(X).numpy(), other.truncate("t")(X).numpy())
    assert [v.path for v in model.truncate("t").trainable_variables] == [
        "body.weight.lora_A",
        "body.weight.lora_B",
    ]
    session = ot.TrainingSession(step.export(tmp_path / "artifact", model=model))
    session.export_inference(tmp_path / "trained.onnx")
    (found,) = onnxruntime.InferenceSession(tmp_path / "trained.onnx").run(None, {"x": X})
    np.testing.assert_allclose(found, model(X), rtol=1e-5, atol=1e-6)
    model.set_trainable("body.bias")
    assert len(model.trainable_variables) == 5


def test_dropout_is_for_training() -> None:
    model = classifier()
    model.add_lora("head.weight", rank=2, dropout=0.5)
    base, hidden = np.asarray(model(X)), np.asarray(model.truncate("t")(X))
    state = model.adapter_state()
    model.load_adapter_state({k: np.ones_like(v) for k, v in state.items()})
    np.testing.assert_allclose(model(X), base + 16 * hidden.sum(1, keepdims=True), rtol=1e-4)
    # Each hidden value is dropped, or counts twice, before A.
    keeps = 2.0 * np.indices((2,) * 5).reshape(5, -1)
    possible = 16 * hidden @ keeps
    found = set()
    for _ in range(10):
        change = (np.asarray(model(X, training=True)) - base)[:, 0]
        place = np.abs(possible - change[:, None]).argmin(1)
        np.testing.assert_allclose(possible[np.arange(4), place], change, atol=1e-3)
        found.add(tuple(place))
    assert len(found) == 10


def test_what_makes_no_sense() -> None:
    model = classifier()
    with pytest.raises(ValueError, match=r"has no weight 'tail'"):
        model.add_lora("tail")
    with pytest.raises(ValueError, match=r"rank 2, and 'body.bias' names none: body.bias \[5\]"):
        model.add_lora(["head.*", "body.bias"])
    for options, message in (
        ({"rank": 0}, "rank is a whole number of at least 1, not 0"),
        ({"alpha": -1}, "alpha is a positive number, not -1"),
        ({"dropout": 1}, "dropout lies between 0 and 1, not at 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.add_lora("head.*", **options)
    assert model.adapter_state() == {}
    model.add_lora("head.*")
    with pytest.raises(
        ValueError, match=r"the weight 'head.weight' of model 'model' has an adapter"
    ):
        model.add_lora("*")
    with pytest.raises(VariableError, match=r"what is to be loaded has no 'head.weight.lora_A'"):
        model.load_adapter_state({})
    with pytest.raises(VariableError, match="the model has no 'z'; the adapters are head"):
        model.load_adapter_state({**model.adapter_state(), "z": 1})
    wrong = {**model.adapter_state(), "head.weight.lora_A": np.zeros((5, 2))}
    with pytest.raises(VariableError, match=r"shape \(5, 8\), but \(5, 2\) was given"):
        model.load_adapter_state(wrong)
    left = ot.load_onnx(CASES["from the left"][0])
    with pytest.raises(ValueError, match="is used otherwise than as the right operand"):
        left.add_lora("w", dropout=0.1)
