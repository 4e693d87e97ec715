"""What torch.onnx.export has computed from a parameter, which is trained as the parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxtape as ot
from tests.frontend.onnx_graphs import X, model_of, run, tensors

RNG = np.random.default_rng(3)
W = RNG.uniform(-1, 1, 4).astype("f")


def noted(made: dict[str, list[str]], parameters: list[str], **weights: Any) -> onnx.ModelProto:
    """x times every weight, whose origins are noted as torch.onnx.export does it."""
    nodes, value = [], "x"
    for i, name in enumerate(weights):
        result = "logits" if i == len(weights) - 1 else f"h{i}"
        nodes.append(helper.make_node("Mul", [value, name], [result]))
        value = result
    proto = model_of(nodes, tensors(**weights))
    note_origins(proto, made, parameters)
    return proto


def note_origins(proto: onnx.ModelProto, made: dict[str, list[str]], parameters: list[str]) -> None:
    for name, parts in made.items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        info.metadata_props.add(key="pkg.onnxscript.optimizer.folded_from", value=str(parts))
        proto.graph.value_info.append(info)
    proto.graph.metadata_props.add(
        key="pkg.torch.export.ExportedProgram.graph_signature",
        value="".join(f"p: PARAMETER target='{name}'\n" for name in parameters),
    )


def gradients(model: Any, factor: Any) -> list[Any]:
    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(model(x) * factor)
        return tape.gradient(loss, model.trainable_variables)

    return [np.asarray(g) for g in step(X)]


def differences(f: Any, w: Any) -> Any:
    """Central differences in double precision."""
    steps = np.eye(w.size) * 1e-5
    return np.array([(f(w + s.reshape(w.shape)) - f(w - s.reshape(w.shape))) / 2e-5 for s in steps])


@pytest.mark.parametrize(
    ("of_w", "shape"),
    [
        (lambda w: 1 - w, (4,)),
        (lambda w: 0.3 * w, (1, 4)),
        (lambda w: -2.5 * w + 0.123, (1, 1, 4)),
    ],
)
@pytest.mark.parametrize("name", ["sub_5", "rsub", "onnx::Mul_199"])
def test_a_multiple_of_a_parameter_that_is_there_follows_it(
    tmp_path: Path, name: str, of_w: Any, shape: Any
) -> None:
    """RWKV mixes by w and by 1 - w, of which the exporter makes a constant of its own.

    It notes that in opset 18 and later, unless dynamo=False.
    """
    made = {"sub_5": ["mix", "val_1"]} if name == "sub_5" else {}
    proto = noted(made, ["mix"] if made else [], **{"mix": W, name: of_w(W).reshape(shape)})
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    assert weight.path == "mix"
    np.testing.assert_allclose(model(X), run(proto, x=X)[0], rtol=1e-5)
    factor = RNG.normal(size=(5, 4)).astype("f")
    (found,) = gradients(model, factor)
    expected = differences(lambda w: (X * w * of_w(w) * factor).sum(), W.astype("f8"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    weight.assign(W * W)
    model.set_trainable(name)
    assert model.trainable_variables == [weight]
    saved = onnx.load(model.save_onnx(tmp_path / "trained.onnx"))
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in saved.graph.initializer}
    np.testing.assert_allclose(arrays[name], of_w(W * W).reshape(shape), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "parts", "of_w"),
    [
        ("exp_1", ["a_log"], np.exp),
        ("unsqueeze_3", ["a_log", "exp", "neg", "unsqueeze_2", "val_51"], lambda w: -np.exp(w)),
        ("exp", ["a_log", "neg_2"], lambda w: np.exp(-w)),
        ("softplus", ["a_log", "beta", "beta_0_cast", "tmp"], lambda w: np.log1p(np.exp(w))),
    ],
)
def test_a_parameter_that_is_not_there_is_found_again(
    tmp_path: Path, name: str, parts: list[str], of_w: Any
) -> None:
    """Mamba's A = -exp(A_log), which has to stay negative."""
    shape = (1, 4) if "unsqueeze" in name else (4,)
    proto = noted({name: parts}, ["a_log"], **{name: of_w(W).reshape(shape)})
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    assert weight.path == "a_log"
    np.testing.assert_allclose(weight, W, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model(X), run(proto, x=X)[0], rtol=1e-5)
    factor = RNG.normal(size=(5, 4)).astype("f")
    (found,) = gradients(model, factor)
    expected = differences(lambda w: (X * of_w(w) * factor).sum(), W.astype("f8"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    weight.assign(W * W)
    trained = model.trained_weights()
    assert list(trained) == [name]
    np.testing.assert_allclose(trained[name], of_w(W * W).reshape(shape), rtol=1e-5)
    saved = model.save_onnx(tmp_path / "trained.onnx")
    np.testing.assert_allclose(model(X), run(saved, x=X)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "parts", "array"),
    [
        ("mul_3", ["gone", "val_1"], W * 2),  # By how much is not to be known.
        ("exp", ["gone", "mul"], np.exp(2 * W)),
        ("exp", ["gone", "neg", "neg_1"], np.exp(W)),
        ("exp", ["gone", "other"], np.exp(W)),
        ("neg", ["gone"], -W),
        ("softplus", ["gone"], W),  # Is not positive.
    ],
)
def test_what_cannot_be_undone_is_trained_as_it_is(name: str, parts: list[str], array: Any) -> None:
    model = ot.load_onnx(noted({name: parts}, ["gone", "other"], **{name: array}))
    (weight,) = model.trainable_variables
    assert weight.path == name
    np.testing.assert_array_equal(weight, array)


@pytest.mark.parametrize(("name", "factor"), [("mul_3", 0.25), ("div_1", 4.0)])
def test_a_parameter_that_a_known_number_scales_is_found_again(name: str, factor: float) -> None:
    """Funnel scales queries and their biases by the same number; the file holds it."""
    scaled = W / 4
    proto = noted(
        {name: ["gone", "val_7"]}, ["gone"], **{name: scaled, "val_7": np.float32(factor)}
    )
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    assert weight.path == "gone"
    np.testing.assert_allclose(weight, W, rtol=1e-6)
    (found,) = gradients(model, np.float32(1))
    np.testing.assert_allclose(found, X.sum(0) * 0.25 * factor, rtol=1e-5)
    weight.assign(2 * W)
    np.testing.assert_allclose(model.trained_weights()[name], 2 * scaled, rtol=1e-6)


def test_one_parameter_behind_two_constants_is_not_found_again() -> None:
    proto = noted(
        {"exp": ["gone"], "exp_1": ["gone"]}, ["gone"], exp=np.exp(W), exp_1=np.exp(W[None])
    )
    model = ot.load_onnx(proto)
    assert [v.path for v in model.trainable_variables] == ["exp", "exp_1"]


def test_numbers_are_trained_where_they_are_noted_to_be_parameters() -> None:
    """CLIP's temperature."""
    number = np.float32(0.5)
    proto = noted({}, ["scale", "w"], w=W, scale=number, factor=np.float32(3))
    model = ot.load_onnx(proto)
    assert [v.path for v in model.trainable_variables] == ["w", "scale"]
    by_weight, by_number = gradients(model, np.float32(1))
    np.testing.assert_allclose(by_weight, 1.5 * X.sum(0), rtol=1e-5)
    np.testing.assert_allclose(by_number, (3 * X * W).sum(), rtol=1e-5)
    del proto.graph.metadata_props[:]
    assert [v.path for v in ot.load_onnx(proto).trainable_variables] == ["w"]


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("order", [("table", "dense"), ("dense", "table"), ("table", "other")])
def test_a_weight_inside_of_another_one_is_the_same(
    tmp_path: Path, flipped: bool, order: tuple[str, str]
) -> None:
    """MobileBERT multiplies by its embeddings, transposed, and another weight behind them."""
    table, rest = (RNG.normal(size=s).astype("f") for s in ((4, 4), (3, 4)))
    arrays = {"table": table.T if flipped else table, order[order[0] == "table"]: rest}
    joined = np.concatenate([arrays[name] for name in order])
    nodes = [
        helper.make_node("MatMul", ["x", "table"], ["h"]),
        helper.make_node("Transpose", ["cat_1"], ["t"]),
        helper.make_node("MatMul", ["h", "t"], ["logits"]),
    ]
    kept = {"other": rest} if "other" in order else {}
    proto = model_of(nodes, tensors(table=table, cat_1=joined, **kept))
    note_origins(proto, {"cat_1": [*order, "t"]}, [*order])
    model = ot.load_onnx(proto)
    assert {v.path for v in model.trainable_variables} == set(order)
    np.testing.assert_allclose(model(X), run(proto, x=X)[0], rtol=1e-5)
    factor = RNG.normal(size=(5, 7)).astype("f")
    found = dict(
        zip([v.path for v in model.trainable_variables], gradients(model, factor), strict=True)
    )

    def loss(w: Any) -> Any:
        wide = np.concatenate(
            [(w.T if flipped else w) if name == "table" else rest for name in order]
        )
        return (X @ w @ wide.T * factor).sum()

    expected = differences(loss, table.astype("f8")).reshape(4, 4)
    np.testing.assert_allclose(found["table"], expected, rtol=1e-3, atol=1e-5)
    for weight in model.trainable_variables:
        weight.assign(weight * weight)
    saved = onnx.load(model.save_onnx(tmp_path / "trained.onnx"))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in saved.graph.initializer}
    np.testing.assert_allclose(stored["cat_1"], joined**2, rtol=1e-6)
    np.testing.assert_allclose(model(X), run(saved, x=X)[0], rtol=1e-4)
    assert model.truncate("t").trainable_variables == model.trainable_variables


@pytest.mark.parametrize(
    "joined",
    [
        np.concatenate([W[None], W[None]]),  # There twice.
        np.stack([2 * W, W + 1]),  # Not there.
        np.stack([W + 1, W, W + 2]),  # Two pieces are left, for one parameter.
    ],
)
def test_what_is_not_clearly_joined_is_trained_as_it_is(joined: Any) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"]),
        helper.make_node("Transpose", ["cat_1"], ["t"]),
        helper.make_node("MatMul", ["h", "t"], ["logits"]),
    ]
    proto = model_of(nodes, tensors(w=W[None], cat_1=joined))
    note_origins(proto, {"cat_1": ["w", "gone"]}, ["w", "gone"])
    assert [v.path for v in ot.load_onnx(proto).trainable_variables] == ["w", "cat_1"]
