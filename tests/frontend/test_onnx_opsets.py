"""load_onnx: what older opsets wrote differently, and what newer ones have added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot

ops = ot.ops
RNG = np.random.default_rng(4)
X = RNG.normal(size=(2, 4, 6, 6)).astype("f")
CHANNELS = {k: (RNG.normal(size=4) + 3).astype("f") for k in ("scale", "bias", "mean", "var")}
RATE = {"scales": np.float32([1, 1, 2, 2])}
node = helper.make_node


def model_of(
    nodes: list[onnx.NodeProto], initializers: dict[str, Any], opset: int, dims: Any = (2, 4, 6, 6)
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in initializers.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=min(10, max(4, opset - 8)))


OLD: dict[str, tuple[int, onnx.NodeProto, dict[str, Any]]] = {
    "upsample-7": (
        7, node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest"), {}
    ),
    "upsample-9": (9, node("Upsample", ["x", "scales"], ["y"], mode="linear"), RATE),
    "resize-10": (10, node("Resize", ["x", "scales"], ["y"], mode="linear"), RATE),
    "resize-11": (
        11,
        node("Resize", ["x", "roi", "scales"], ["y"], mode="linear",
             coordinate_transformation_mode="align_corners"),
        {"roi": np.float32([]), **RATE},
    ),
    "batch-normalization-8": (
        8, node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y"]), CHANNELS
    ),
    "dropout-7": (7, node("Dropout", ["x"], ["y"], ratio=0.3), {}),
    "softmax-9": (9, node("Softmax", ["x"], ["y"], axis=1), {}),
    "log-softmax-11": (11, node("LogSoftmax", ["x"], ["y"], axis=2), {}),
    "pad-2": (
        9, node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 2, 1], mode="reflect"), {}
    ),
    "slice-1": (9, node("Slice", ["x"], ["y"], starts=[1, 0], ends=[9, -1], axes=[2, 3]), {}),
    "unsqueeze-11": (11, node("Unsqueeze", ["x"], ["y"], axes=[0, -1]), {}),
    "split-11": (11, node("Split", ["x"], ["y", "z"], axis=1, split=[1, 3]), {}),
    "clip-6": (9, node("Clip", ["x"], ["y"], min=-0.5, max=0.5), {}),
    "top-k-1": (9, node("TopK", ["x"], ["y", "i"], axis=3, k=2), {}),
    "reduce-mean-1": (9, node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0), {}),
    "reduce-sum-11": (11, node("ReduceSum", ["x"], ["y"], axes=[-1]), {}),
    "gemm-9": (9, node("Gemm", ["flat", "w", "c"], ["y"], transB=1),
               {"w": RNG.normal(size=(3, 144)).astype("f"), "c": np.float32([1, 2, 3])}),
    "group-normalization-18": (
        18, node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2),
        {"scale": CHANNELS["scale"][:2], "bias": CHANNELS["bias"][:2]},
    ),
    "scatter-9": (
        9, node("Scatter", ["x", "i", "u"], ["y"], axis=2),
        {"i": np.zeros((2, 4, 1, 6), np.int64), "u": np.ones((2, 4, 1, 6), "f")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_old_forms(name: str) -> None:
    opset, operator, initializers = OLD[name]
    nodes = [node("Flatten", ["x"], ["flat"]), operator]
    for dims in ((2, 4, 6, 6), ("n", "c", "h", "w")):
        proto = model_of(nodes, initializers, opset, dims)
        if opset < 9:
            proto.graph.input.extend(
                helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
                for n, a in initializers.items()
            )
        feeds = {"x": X}
        if name.startswith("group"):
            # ONNX Runtime has no kernel of that opset; the formula, then.
            groups = X.reshape(2, 2, -1)
            mean, var = groups.mean(2, keepdims=True), groups.var(2, keepdims=True)
            scale, bias = (initializers[k].reshape(1, 2, 1) for k in ("scale", "bias"))
            expected = ((groups - mean) / np.sqrt(var + 1e-5) * scale + bias).reshape(X.shape)
        else:
            expected = ort.InferenceSession(proto.SerializeToString()).run(["y"], feeds)[0]
        model = ot.load_onnx(proto)
        for step in (model, ot.function(model, fallback="error")):
            np.testing.assert_allclose(step(X), expected, rtol=1e-4, atol=1e-5)


H = RNG.normal(size=(2, 3, 8)).astype("f")
NEW: dict[str, tuple[int, list[onnx.NodeProto], dict[str, Any]]] = {
    "swish": (24, [node("MatMul", ["x", "w"], ["h"]), node("Swish", ["h"], ["y"], alpha=1.5)],
              {"w": RNG.normal(size=(8, 8)).astype("f")}),
    "root-mean-square": (23, [node("RMSNormalization", ["x", "w"], ["y"])],
                         {"w": RNG.normal(size=8).astype("f")}),
    "attention": (
        24,
        [node("MatMul", ["x", "w"], ["q"]),
         node("Attention", ["q", "x", "x"], ["y"], q_num_heads=2, kv_num_heads=2, is_causal=1)],
        {"w": RNG.normal(size=(8, 8)).astype("f")},
    ),
    "old-operators": (22, [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])],
                      {"w": RNG.normal(size=(8, 8)).astype("f")}),
}  # fmt: skip


@pytest.mark.parametrize("name", NEW)
def test_new_operators(name: str, tmp_path: Path) -> None:
    """They run and train, eagerly and compiled; an exported step is of the opset they need."""
    opset, nodes, initializers = NEW[name]
    proto = model_of(nodes, initializers, opset, ("n", 3, 8))
    (expected,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": H})
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    projection = RNG.normal(size=expected.shape).astype("f")

    def gradient(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
            loss = ops.sum(y * projection)
        return y, tape.gradient(loss, weight)

    compiled = ot.function(gradient, fallback="error")
    value, direction = weight.numpy(), RNG.normal(size=weight.shape).astype("f")
    sides = []
    for shift in (1e-2, -1e-2):
        weight.assign(value + shift * direction)
        sides.append(float((np.asarray(model(H)) * projection).sum()))
    weight.assign(value)
    for step in (gradient, compiled):
        y, found = step(H)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        slope = float((np.asarray(found) * direction).sum())
        assert slope == pytest.approx((sides[0] - sides[1]) / 2e-2, rel=2e-2, abs=1e-2)
    needed = {"swish": 24, "old-operators": 21}.get(name, 23)
    proto = compiled.get_concrete_function(H).model
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", needed)]
    folder = tmp_path / "step"
    compiled.export(folder, H)
    assert json.loads((folder / "manifest.json").read_text())["opset"] == needed


def test_a_new_operator_inside_a_branch() -> None:
    def branch(op_type: str) -> onnx.GraphProto:
        name = op_type.lower()
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node(op_type, ["x"], [name])], name, [], [out])

    proto = model_of(
        [
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Greater", ["s", "zero"], ["c"]),
            node("If", ["c"], ["y"], then_branch=branch("Swish"), else_branch=branch("Neg")),
        ],
        {"zero": np.float32(0)}, 24, ("n", 3, 8),
    )  # fmt: skip
    model = ot.load_onnx(proto)
    session = ort.InferenceSession(proto.SerializeToString())
    step = ot.function(model, fallback="error")
    for x in (H + 1, H - 1):
        np.testing.assert_allclose(step(x), session.run(None, {"x": x})[0], rtol=1e-5)
