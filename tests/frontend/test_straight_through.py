"""A model with quantized values in it, as exporters write it for training, learns on request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot


def quantized_model(trainable: Any = "w", scale: Any = 0.1) -> ot.Model:
    """y = dequantized(quantized(x @ w)), with a scale of 0.1."""
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "w"], ["h"]),
            node("QuantizeLinear", ["h", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 2))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 2))],
        [
            numpy_helper.from_array(np.float32([[0.5, 9.0], [0.25, 9.0]]), "w"),
            numpy_helper.from_array(np.float32(scale), "s"),
            numpy_helper.from_array(np.int8(0), "z"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ot.load_onnx(proto, trainable=trainable)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_weight_of_a_quantized_model_learns(compiled: bool) -> None:
    model = quantized_model()
    x = np.float32([[1.0, 2.0], [3.0, -1.0]])

    def gradient(batch: Any, straight_through: bool) -> Any:
        with ot.GradientTape(straight_through=straight_through) as tape:
            y = ot.ops.sum(model(batch))
        return tape.gradient(y, model.trainable_variables[0])

    step = ot.function(gradient, fallback="error") if compiled else gradient
    # The second column saturates at 12.7, in both rows.
    np.testing.assert_allclose(step(x, True).numpy(), [[4.0, 0.0], [1.0, 0.0]], rtol=1e-6)
    assert gradient(x, False) is None


def test_scales_are_measured_and_not_trained() -> None:
    model = quantized_model(trainable=None, scale=[0.1, 0.2])
    assert [v.path for v in model.variables] == ["w", "s"]
    assert not model.trainable_variables  # None passes a gradient on but by request.


def test_rounding_passes_gradients_on_request() -> None:
    x = ot.convert_to_tensor(np.float32([0.3, 1.6]))
    with ot.GradientTape(straight_through=True) as tape:
        tape.watch(x)
        y = ot.ops.round(x) * x
    np.testing.assert_allclose(tape.gradient(y, x).numpy(), [0.3, 3.6], rtol=1e-6)
