"""load_onnx: parameters that the exporter has merged or left out, because they begin alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot

ops = ot.ops
RNG = np.random.default_rng(3)
X = RNG.normal(size=(5, 3)).astype("f")
FIRST, LAST = RNG.normal(size=(3, 4)).astype("f"), RNG.normal(size=(4, 4)).astype("f")
ONES, ZEROS = np.ones(4, "f"), np.zeros(4, "f")
CALL = "pkg.torch.onnx.fx_node"
SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"


def node(op_type: str, inputs: str, output: str, call: str = "", **given: Any) -> onnx.NodeProto:
    made = helper.make_node(op_type, inputs.split(), [output], **given)
    if call:
        made.metadata_props.add(
            key=CALL,
            value=f"%{output} : [num_users=1] = call_function[target={call}, kwargs = {{}})",
        )
    return made


def model_of(
    nodes: list[onnx.NodeProto], weights: dict[str, Any], parameters: str = ""
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(a, name) for name, a in weights.items()],
    )
    lines = [f"p_{p.replace('.', '_')}: PARAMETER target='{p}'" for p in parameters.split()]
    if lines:
        graph.metadata_props.add(key=SIGNATURE, value="\n".join(["", "# inputs", *lines]))
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="pytorch")


def net(first: str, norm: str, other: str, last: str) -> list[onnx.NodeProto]:
    """A layer, two normalizations and a layer; the names are those of their biases."""
    scales = [name.replace("bias", "weight") for name in (norm, other)]
    if norm == other:
        scales = ["norm.weight", "norm.weight"]
    linear = "torch.ops.aten.linear.default](args = "
    normalize = "torch.ops.aten.layer_norm.default](args = "
    return [
        node("Gemm", f"x first.weight {first}", "h",
             f"{linear}(%x, %p_first_weight, %p_first_bias)"),
        node("LayerNormalization", f"h {scales[0]} {norm}", "n",
             f"{normalize}(%h, [4], %p_norm_weight, %p_norm_bias, 1e-05)"),
        node("LayerNormalization", f"n {scales[1]} {other}", "m",
             f"{normalize}(%n, [4], %p_other_weight, %p_other_bias, 1e-05)"),
        node("MatMul", "m last.weight", "l", f"{linear}(%m, %p_last_weight, %p_last_bias)"),
        node("Add", f"l {last}", "y", f"{linear}(%m, %p_last_weight, %p_last_bias)"),
    ]  # fmt: skip


PARAMETERS = (
    "first.weight first.bias norm.weight norm.bias other.weight other.bias last.weight last.bias"
)
#: As the framework has it, and as its exporter writes it.
APART = model_of(
    net("first.bias", "norm.bias", "other.bias", "last.bias"),
    {
        **{"first.weight": FIRST, "first.bias": ZEROS, "norm.weight": ONES, "norm.bias": ZEROS},
        **{"other.weight": ONES, "other.bias": ZEROS, "last.weight": LAST, "last.bias": ZEROS},
    },
    PARAMETERS,
)
MERGED = model_of(
    net("", "norm.bias", "norm.bias", "norm.bias"),
    {"first.weight": FIRST, "norm.weight": ONES, "norm.bias": ZEROS, "last.weight": LAST},
    PARAMETERS,
)


def trained(model: Any, steps: int = 3) -> dict[str, Any]:
    target = np.random.default_rng(8).normal(size=(5, 4)).astype("f")
    optimizer = ot.optimizers.Adam(0.1)

    @ot.function(fallback="error")
    def step() -> Any:
        with ot.GradientTape() as tape:
            loss = ops.mean((model(X) - target) ** 2)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    for _ in range(steps):
        step()
    return {v.path: v.numpy() for v in model.trainable_variables}


def test_they_are_trained_apart(tmp_path: Path) -> None:
    expected = trained(ot.load_onnx(APART))
    model = ot.load_onnx(MERGED)
    found = trained(model)
    assert sorted(found) == sorted(PARAMETERS.split())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    path = model.save_onnx(tmp_path / "net.onnx")
    (saved,) = ort.InferenceSession(str(path)).run(None, {"x": X})
    np.testing.assert_allclose(saved, model(X), rtol=1e-5, atol=1e-6)
    again = ot.load_onnx(path)
    assert sorted(v.path for v in again.trainable_variables) == sorted(found)


def test_modules_that_share_a_weight_stay_one() -> None:
    """The same layer twice: one weight, which is not uniform, and one bias."""
    linear = "torch.ops.aten.linear.default](args = "
    nodes = [
        node("MatMul", "x first", "h"),
        node("MatMul", "h a.weight", "i", f"{linear}(%h, %p_a_weight, %p_a_bias)"),
        node("Add", "i a.bias", "j", f"{linear}(%h, %p_a_weight, %p_a_bias)"),
        node("MatMul", "j a.weight", "k", f"{linear}(%j, %p_b_weight, %p_b_bias)"),
        node("Add", "k a.bias", "y", f"{linear}(%j, %p_b_weight, %p_b_bias)"),
    ]
    proto = model_of(
        nodes,
        {"first": FIRST, "a.weight": LAST, "a.bias": ZEROS},
        "a.weight a.bias b.weight b.bias",
    )
    assert {v.path for v in ot.load_onnx(proto).trainable_variables} == {"a.weight", "a.bias"}


def noted(made: onnx.NodeProto, scopes: list[str], classes: list[str]) -> onnx.NodeProto:
    made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
    made.metadata_props.add(key="pkg.torch.onnx.class_hierarchy", value=str(classes))
    return made


def two_layers(classes: list[str], second: str) -> onnx.ModelProto:
    """x W exp(r) W' exp(r), of two layers whose rates begin alike, and are folded."""
    linear, mul = "torch.ops.aten.linear.default](args = ", "torch.ops.aten.mul.Tensor](args = "
    nodes = [node("MatMul", "x first", "h")]
    for name, weight, out in (("a", "a.weight", "k"), ("b", second, "y")):
        scopes, start = ["", f"layers.{name}", "mul"], "h" if name == "a" else "k"
        linear_call, mul_call = f"{linear}(%{start}, %p_layers_{name}_weight)", f"{mul}(%j, %exp)"
        product = node("MatMul", f"{start} layers.{weight}", f"j{name}", linear_call)
        scaled = node("Mul", f"j{name} exp", out, mul_call)
        nodes += [noted(n, scopes, classes) for n in (product, scaled)]
    weights = {"first": FIRST, "layers.a.weight": LAST, "exp": np.exp(np.arange(4, dtype="f"))}
    if second == "b.weight":
        weights["layers.b.weight"] = LAST[::-1].copy()
    names = "layers.a.weight layers.a.rate layers.b.weight layers.b.rate"
    proto = model_of(nodes, weights, names)
    value = proto.graph.value_info.add(name="exp")
    value.metadata_props.add(key="pkg.onnxscript.optimizer.folded_from", value="['layers.a.rate']")
    return proto


NOTHING, COPIED = ["Net", "Layer", "mul"], ["torch.nn.modules.transformer.TransformerEncoder"] * 2
LAYERS = {"layers.a.weight", "layers.a.rate", "layers.b.weight", "layers.b.rate"}


@pytest.mark.parametrize(
    ("classes", "second", "expected"),
    [
        (NOTHING, "b.weight", LAYERS),
        (NOTHING, "a.weight", {"layers.a.weight", "layers.a.rate"}),
        (COPIED, "a.weight", LAYERS),
    ],
    ids=["other weights differ", "one layer twice", "a copied layer"],
)
def test_layers_that_begin_alike(
    classes: list[str], second: str, expected: set[str], tmp_path: Path
) -> None:
    model = ot.load_onnx(two_layers(classes, second))
    found = trained(model)
    assert set(found) == expected
    if expected == LAYERS:
        assert not np.allclose(found["layers.a.rate"], found["layers.b.rate"])
        assert not np.allclose(found["layers.a.weight"], found["layers.b.weight"])
    again = ot.load_onnx(model.save_onnx(tmp_path / "net.onnx"))
    np.testing.assert_allclose(again(X), model(X), rtol=1e-5)


@pytest.mark.parametrize("lost", ["notes", "signature"])
def test_where_nothing_is_noted_they_are_what_the_file_says(lost: str) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(MERGED)
    if lost == "signature":
        del proto.graph.metadata_props[:]
    for each in proto.graph.node if lost == "notes" else []:
        del each.metadata_props[:]
    names = {v.path for v in ot.load_onnx(proto).trainable_variables}
    assert names == {"first.weight", "norm.weight", "norm.bias", "last.weight"}


def test_statistics_are_no_longer_one_with_a_bias() -> None:
    call = "torch.ops.aten.batch_norm.default](args = (%h, %p_w, %p_b, %b_mean, %b_var, False)"
    nodes = [
        node("MatMul", "x first", "h"),
        node("BatchNormalization", "h w b b w", "y", call),
    ]
    proto = model_of(nodes, {"first": FIRST, "w": ONES, "b": ZEROS})
    places = ["p_w: PARAMETER target='w'", "p_b: PARAMETER target='b'"]
    places += ["b_mean: BUFFER target='mean'", "b_var: BUFFER target='var'"]
    proto.graph.metadata_props.add(key=SIGNATURE, value="\n".join(places))
    model = ot.load_onnx(proto)
    assert {v.path for v in model.trainable_variables} == {"w", "b"}
    assert {v.path for v in model.weights} >= {"w", "b", "mean", "var"}


def test_a_file_that_lies_is_not_made_more_than_twice_as_large() -> None:
    calls = [f"torch.ops.aten.add.Tensor](args = (%x, %p_p{i})" for i in range(100)]
    nodes = [node("MatMul", "x first", "h0")]
    nodes += [node("Add", f"h{i} p0", f"h{i + 1}", call) for i, call in enumerate(calls)]
    nodes[-1].output[0] = "y"
    wide = {"first": np.zeros((3, 100_000), "f"), "p0": np.zeros(100_000, "f")}
    proto = model_of(nodes, wide, " ".join(f"p{i}" for i in range(100)))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 100_000
    model = ot.load_onnx(proto)
    total = sum(v.numpy().nbytes for v in model.weights)
    assert total <= 2 * proto.ByteSize()
