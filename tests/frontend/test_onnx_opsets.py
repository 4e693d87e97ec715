"""load_onnx: what older opsets wrote differently, and what newer ones have added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import onnxtape as ot
from onnxtape.errors import ModelError

ops = ot.ops
RNG = np.random.default_rng(4)
X = RNG.normal(size=(2, 4, 6, 6)).astype("f")
CHANNELS = {k: (RNG.normal(size=4) + 3).astype("f") for k in ("scale", "bias", "mean", "var")}
#: Of its own, so that what is drawn for `NEW` does not depend on how many old forms there are.
GRID, OTHER = (
    np.random.default_rng(5).uniform(-0.9, 0.9, s).astype("f") for s in ((2, 3, 3, 2), 6)
)
KERNEL = np.random.default_rng(6).normal(size=(4, 3, 3, 2)).astype("f")
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
    "resize-10-shrinking": (
        10, node("Resize", ["x", "scales"], ["y"], mode="nearest"),
        {"scales": np.float32([1, 1, 0.6, 0.5])},
    ),
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
    "reduce-log-sum-exp-13": (13, node("ReduceLogSumExp", ["x"], ["y"], axes=[1, -1]), {}),
    "reduce-prod-1": (9, node("ReduceProd", ["x"], ["y"], axes=[3], keepdims=0), {}),
    "dropout-12": (12, node("Dropout", ["x", "r"], ["y"]), {"r": np.float32(0.3)}),
    "batch-normalization-14": (
        14, node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y", "m", "v"],
                 training_mode=1), CHANNELS
    ),
    "roi-align-10": (
        10, node("RoiAlign", ["x", "rois", "of"], ["y"], output_height=2, output_width=3,
                 sampling_ratio=2),
        {"rois": np.float32([[0.3, 0.4, 4.2, 3.7], [1.1, 0.2, 5, 4]]), "of": np.int64([0, 1])},
    ),
    "grid-sample-16": (
        16, node("GridSample", ["x", "grid"], ["y"], mode="bicubic", padding_mode="border"),
        {"grid": GRID},
    ),
    "max-8": (8, node("Max", ["x", "other"], ["y"]), {"other": OTHER}),
    "average-pool-7": (
        7, node("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 1, 0, 0],
                strides=[2, 1], count_include_pad=1), {}
    ),
    "lp-pool-2": (9, node("LpPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 1]), {}),
    "convolution-1": (
        7, node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 1], output_padding=[1, 0]),
        {"w": KERNEL},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in OLD if not name.startswith("group")])
def test_old_forms_are_differentiated(name: str) -> None:
    """Against differences that ONNX Runtime makes with the file as it is."""
    opset, operator, initializers = OLD[name]
    proto = model_of(
        [node("Flatten", ["x"], ["flat"]), operator], initializers, opset, ("n", 4, 6, 6)
    )
    if opset < 9:
        proto.graph.input.extend(
            helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
            for n, a in initializers.items()
        )
    session = ort.InferenceSession(proto.SerializeToString())
    model = ot.load_onnx(proto)
    rng = np.random.default_rng(0)
    (y,) = session.run(["y"], {"x": X})
    weights = rng.uniform(-1, 1, y.shape).astype("f")
    direction = rng.uniform(-1, 1, X.shape).astype("f")

    def loss(x: Any) -> float:
        return float((session.run(["y"], {"x": x})[0].astype(np.float64) * weights).sum())

    x = ot.convert_to_tensor(X)
    with ot.GradientTape() as tape:
        tape.watch(x)
        result = model(x)
        first = result[0] if isinstance(result, (list, tuple)) else result
        target = ops.sum(first * weights)
    found = float((tape.gradient(target, x).numpy() * direction).sum())
    # A wide step crosses kinks, a narrow one rounds: one of them has to agree.
    slopes = [(loss(X + h * direction) - loss(X - h * direction)) / (2 * h) for h in (1e-2, 1e-3)]
    scale = abs(found) + 0.1 * float(np.sqrt(np.abs(weights).sum())) + 0.05
    assert min(abs(slope - found) for slope in slopes) < 2e-2 * scale


@pytest.mark.parametrize("name", OLD)
def test_old_forms(name: str, tmp_path: Path) -> None:
    opset, operator, initializers = OLD[name]
    nodes = [node("Flatten", ["x"], ["flat"]), operator]
    for dims in ((2, 4, 6, 6), ("n", "c", "h", "w")):
        proto = model_of(nodes, initializers, opset, dims)
        if opset < 9:  # As old files are, but for what ONNX's checker asks of them.
            proto.ir_version = 3
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
        weights = {v.path for v in model.variables}
        assert weights == {k for k, a in initializers.items() if np.ndim(a) and a.dtype == "f"}
        model.save_onnx(tmp_path / "saved.onnx")  # Nothing that the newer opset has brought.
        assert (tmp_path / "saved.onnx").read_bytes() == proto.SerializeToString()


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
    rng = np.random.default_rng(9)  # Not what other tests draw from, in whichever order.
    opset, nodes, initializers = NEW[name]
    proto = model_of(nodes, initializers, opset, ("n", 3, 8))
    (expected,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": H})
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    projection = rng.normal(size=expected.shape).astype("f")

    def gradient(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
            loss = ops.sum(y * projection)
        return y, tape.gradient(loss, weight)

    compiled = ot.function(gradient, fallback="error")
    value, direction = weight.numpy(), rng.normal(size=weight.shape).astype("f")

    def loss(shift: float) -> float:
        weight.assign(value + shift * direction)
        return float((np.asarray(model(H), np.float64) * projection).sum())

    # A wide step crosses kinks, a narrow one rounds: one of them has to agree.
    slopes = [(loss(h) - loss(-h)) / (2 * h) for h in (1e-2, 1e-3)]
    weight.assign(value)
    for step in (gradient, compiled):
        y, found = step(H)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        slope = float((np.asarray(found) * direction).sum())
        assert min(abs(slope - s) for s in slopes) < 1e-2 + 2e-2 * abs(slope)
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


def test_an_old_resize_that_grows_and_shrinks_by_the_nearest_is_refused() -> None:
    operator = node("Resize", ["x", "scales"], ["y"], mode="nearest")
    proto = model_of([operator], {"scales": np.float32([1, 1, 2, 0.5])}, 10)
    with pytest.raises(ModelError, match="Resize 'y' makes some axes longer and others shorter"):
        ot.load_onnx(proto)


def test_a_scan_of_opset_8_is_refused() -> None:
    proto = parser.parse_model("""
        <ir_version: 4, opset_import: ["": 8]>
        net (float[2, l, 3] x, float[2, 3] start) => (float[2, l, 3] y) {
            last, y = Scan <num_scan_inputs = 1, body = step (float[3] s, float[3] a) =>
                    (float[3] t, float[3] b) { t = Add(s, a)  b = Tanh(t) }> (, start, x)
        }""")
    with pytest.raises(ModelError, match="Scan 'last' takes examples one by one"):
        ot.load_onnx(proto)


@pytest.mark.parametrize("op_type", ["GRU", "LSTM", "RNN"])
def test_recurrent_operators_whose_first_axis_is_the_batch(op_type: str) -> None:
    """ONNX Runtime has no kernel for them: they are as the form that it has, with axes swapped."""
    rng = np.random.default_rng(7)
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[op_type]
    weights = {
        name: rng.normal(size=size).astype("f")
        for name, size in (
            ("w", (2, gates * 5, 4)),
            ("r", (2, gates * 5, 5)),
            ("b", (2, gates * 10)),
            ("h", (2, 3, 5)),
            ("c", (2, 3, 5)),
        )
    }
    x, lengths = rng.normal(size=(3, 6, 4)).astype("f"), np.int32([6, 2, 4])
    states, outputs = ["h"], ["y", "last"]
    if op_type == "LSTM":
        states, outputs = ["h", "c"], ["y", "last", "cell"]

    def model(layout: int) -> Any:
        tensors = dict(weights)
        if layout:
            tensors.update({k: weights[k].swapaxes(0, 1) for k in ("h", "c")})
        graph = helper.make_graph(
            [
                node(
                    op_type,
                    ["x", "w", "r", "b", "lengths", *states],
                    outputs,
                    direction="bidirectional",
                    hidden_size=5,
                    layout=layout,
                )
            ],
            "net",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, ("m", "n", 4)),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, (3,)),
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(tensors[k], k) for k in ("w", "r", "b", *states)],
        )
        opsets = [helper.make_opsetid("", 21)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    session = ort.InferenceSession(model(0).SerializeToString())
    y, *last = session.run(None, {"x": x.swapaxes(0, 1), "lengths": lengths})
    expected = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in last)]

    def gradients(net: Any, x: Any) -> Any:
        with ot.GradientTape() as tape:
            made = net(x, lengths)
            loss = sum(ops.sum(out * out) for out in made)
        variables = {v.path: v for v in net.weights}
        return made, tape.gradient(loss, [variables[k] for k in ("w", "r", "b")])

    plain, swapped = ot.load_onnx(model(0)), ot.load_onnx(model(1))
    slopes = gradients(plain, x.swapaxes(0, 1))[1]
    for way in (gradients, ot.function(gradients, fallback="error")):
        made, found = way(swapped, x)
        for got, want in zip([*made, *found], [*expected, *slopes], strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
