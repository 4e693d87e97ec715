"""Operators of com.microsoft: as ONNX Runtime's kernels compute them, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot
from onnxtape.errors import ModelError
from onnxtape.interop.fused_operators import DOMAIN, OPERATORS

RNG = np.random.default_rng(0)
Arrays = list[Any]


def floats(*shape: int) -> Any:
    return RNG.normal(size=shape).astype("f")


def model_of(
    op_type: str, inputs: Arrays, outputs: int, domain: str, opset: int, attributes: dict[str, Any]
) -> onnx.ModelProto:
    """One node; the first input is the graph's, all others are initializers."""
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(inputs)]
    made = [f"o{k}" if k in (0, outputs - 1) else "" for k in range(outputs)]
    first = inputs[0]
    dtype = helper.np_dtype_to_tensor_dtype(first.dtype)
    graph = helper.make_graph(
        [helper.make_node(op_type, names, made, domain=domain, **attributes)],
        "net",
        [helper.make_tensor_value_info("i0", dtype, ["batch", *first.shape[1:]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made if name],
        [numpy_helper.from_array(a, n) for a, n in list(zip(inputs, names, strict=True))[1:] if n],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


X = floats(2, 3, 8)
QKV = [X, floats(8, 24), floats(24)]
KEYS = [floats(2, 3, 8), floats(2, 3, 8)]
LENGTHS, SEEN = np.int32([2, 3]), np.int32([[1, 1, 0], [1, 1, 1]])
PLACES = np.int64([[0, 1, 2], [1, 2, 3]])
CACHES = [floats(10, 2), floats(10, 2)]
TABLES = [floats(5, 8), floats(4, 8), floats(2, 8), floats(8), floats(8)]

CASES: list[tuple[str, Arrays, dict[str, Any], int]] = [
    ("Gelu", [X], {}, 1),
    ("BiasGelu", [X, floats(8)], {}, 1),
    ("FastGelu", [X], {}, 1),
    ("FastGelu", [X, floats(8)], {}, 1),
    ("QuickGelu", [X], {"alpha": 1.3}, 1),
    ("FusedMatMul", [X, floats(8, 5)], {"alpha": 0.5}, 1),
    ("FusedMatMul", [X, floats(2, 3, 5)], {"transA": 1}, 1),
    ("FusedMatMul", [X, floats(2, 5, 8)], {"transB": 1}, 1),
    ("FusedMatMul", [X, floats(3, 8, 5)], {"transBatchA": 1}, 1),
    ("TransposeMatMul", [X, floats(2, 5, 8)], {"transB": 1}, 1),
    ("FusedGemm", [floats(2, 3), floats(3, 4), floats(4)], {"activation": "Relu"}, 1),
    (
        "FusedGemm",
        [floats(2, 3), floats(4, 3), np.float32([9, -9, 9, -9])],
        {"activation": "LeakyRelu", "activation_alpha": 0.3, "transB": 1},
        1,
    ),
    ("FusedConv", [floats(1, 2, 5, 5), floats(3, 2, 3, 3), floats(3)], {"activation": "Tanh"}, 1),
    (
        "FusedConv",
        [floats(1, 2, 5, 5), floats(3, 2, 3, 3)],
        {"activation": "Clip", "activation_params": [-0.5, 0.5], "pads": [1, 1, 1, 1]},
        1,
    ),
    ("SimplifiedLayerNormalization", [X, floats(8)], {"axis": -1}, 1),
    ("SkipSimplifiedLayerNormalization", [X, floats(2, 3, 8), floats(8)], {}, 1),
    ("SkipSimplifiedLayerNormalization", [X, floats(2, 3, 8), floats(8), floats(8)], {}, 4),
    ("SkipLayerNormalization", [X, floats(2, 3, 8), floats(8)], {}, 1),
    (
        "SkipLayerNormalization",
        [X, floats(2, 3, 8), floats(8), floats(8), floats(8)],
        {"epsilon": 1e-3},
        4,
    ),
    ("EmbedLayerNormalization", [np.int32([[1, 4, 0]]), np.int32([[0, 0, 1]]), *TABLES], {}, 3),
    (
        "EmbedLayerNormalization",
        [np.int32([[1, 4, 0]]), None, *TABLES[:2], None, *TABLES[3:], None, np.int32([[2, 0, 1]])],
        {},
        3,
    ),
    ("RotaryEmbedding", [X, PLACES, *CACHES], {"num_heads": 2}, 1),
    ("RotaryEmbedding", [X, np.int64([4]), *CACHES], {"interleaved": 1}, 1),
    ("RotaryEmbedding", [floats(2, 2, 3, 4), PLACES, *CACHES], {}, 1),
    ("MultiHeadAttention", [X, floats(2, 5, 8), floats(2, 5, 8)], {"num_heads": 2}, 1),
    (
        "MultiHeadAttention",
        [X, floats(2, 5, 8), floats(2, 5, 8), floats(24), None, floats(1, 2, 3, 5)],
        {"num_heads": 2, "scale": 0.3},
        1,
    ),
    ("MultiHeadAttention", [X, *KEYS, None, SEEN], {"num_heads": 2}, 1),
    ("MultiHeadAttention", [X, *KEYS], {"num_heads": 2, "unidirectional": 1}, 1),
    (
        "MultiHeadAttention",
        [X, floats(2, 2, 5, 4), floats(2, 2, 5, 4)],
        {"num_heads": 2, "mask_filter_value": -5.0},
        1,
    ),
    ("Attention", QKV, {"num_heads": 2}, 1),
    ("Attention", [*QKV, LENGTHS], {"num_heads": 2}, 1),
    ("Attention", [*QKV, SEEN], {"num_heads": 2}, 1),
    ("Attention", [*QKV, np.stack([SEEN] * 3, 1)], {"num_heads": 2}, 1),
    ("Attention", QKV, {"num_heads": 2, "unidirectional": 1}, 1),
]


def test_every_operator_has_a_case() -> None:
    assert {f"{DOMAIN}::{case[0]}" for case in CASES} == set(OPERATORS)


@pytest.mark.parametrize(("op_type", "inputs", "attributes", "outputs"), CASES)
@pytest.mark.parametrize("opset", [14, 17, 21])
def test_as_onnx_runtime_and_with_gradients(
    op_type: str, inputs: Arrays, attributes: dict[str, Any], outputs: int, opset: int
) -> None:
    """The gradients against differences along one direction, in the compiled step."""
    domain = "" if op_type.startswith("Simplified") else DOMAIN
    proto = model_of(op_type, inputs, outputs, domain, opset, attributes)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    expected = session.run(None, {"i0": inputs[0]})
    model = ot.load_onnx(proto)
    run = ot.function(lambda x: model(x), fallback="error")
    made = run(inputs[0])
    for mine, theirs in zip(made if len(expected) > 1 else [made], expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-5)

    # Caches of rotations are weights as well; where a mask hides, nothing arrives.
    weights = model.trainable_variables
    assert {v.path for v in weights} == {
        f"i{k}" for k, a in enumerate(inputs) if k and a is not None and a.dtype == np.float32
    }
    if not weights:
        return
    rng = np.random.default_rng(1)
    factor = rng.normal(size=expected[0].shape).astype("f")

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
            loss = ot.ops.sum((y[0] if outputs > 1 else y) * factor)
        return loss, tape.gradient(loss, weights, unconnected_gradients="zero")

    _, gradients = step(inputs[0])
    directions = [rng.normal(size=v.shape).astype("f") for v in weights]
    along = sum(float(np.vdot(g, d)) for g, d in zip(gradients, directions, strict=True))
    losses = []
    for h in (1e-2, -1e-2, 5e-3, -5e-3, 1e-4, -1e-4):
        before = [v.numpy() for v in weights]
        for v, d in zip(weights, directions, strict=True):
            v.assign(v + h * d)
        losses.append(float(step(inputs[0])[0]))
        for v, array in zip(weights, before, strict=True):
            v.assign(array)
    wide, near = (losses[0] - losses[1]) / 2e-2, (losses[2] - losses[3]) / 1e-2
    narrow = (losses[4] - losses[5]) / 2e-4
    # Wide steps cross kinks, narrow ones round: one of them has to agree.
    slopes = ((4 * near - wide) / 3, narrow)
    assert min(abs(along - slope) for slope in slopes) < 2e-2 * abs(along) + 2e-2


def test_layer_normalization_before_it_was_standard() -> None:
    inputs = [X, floats(8), floats(8)]
    proto = model_of("LayerNormalization", inputs, 1, "", 14, {"axis": -1})
    expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
    model = ot.load_onnx(proto)
    np.testing.assert_allclose(model(X), expected * inputs[1] + inputs[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op_type", "domain", "message"),
    [
        ("MatMulNBits", DOMAIN, "com.microsoft::MatMulNBits"),
        ("Gelu", "my.own", "my.own::Gelu"),
    ],
)
def test_others_are_refused_by_name(op_type: str, domain: str, message: str) -> None:
    proto = model_of(op_type, [X], 1, domain, 17, {})
    if domain != DOMAIN:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(ModelError, match=message):
        ot.load_onnx(proto)


def test_what_an_operator_keeps_is_refused() -> None:
    past = [None] * 3 + [floats(2, 2, 4, 4)] * 2
    model = ot.load_onnx(
        model_of("MultiHeadAttention", [X, X, X, *past], 1, DOMAIN, 17, {"num_heads": 2})
    )
    with pytest.raises(ModelError, match="past keys"):
        model(X)
    model = ot.load_onnx(model_of("SkipLayerNormalization", [X, X, floats(8)], 2, DOMAIN, 17, {}))
    with pytest.raises(ModelError, match="output 1, which is not supported"):
        model(X)
