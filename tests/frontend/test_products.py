"""Products with ONNX Runtime's own flags, in the graph that a CPU session runs and only there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir

import onnxtape as ot
from onnxtape import ops


def _perm(node: ir.Node) -> tuple[int, ...]:
    return tuple(node.attributes["perm"].as_ints())


def test_a_block_of_a_transformer_trains_as_it_does_eagerly(ran: list[ir.Model]) -> None:
    ot.set_seed(1)
    attention = ot.layers.MultiHeadAttention(2, 4)
    wide = ot.layers.Dense(16, activation="gelu")
    narrow = ot.layers.Dense(8)
    x = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    narrow(wide(attention(x, x)))
    variables = [*attention.weights, *wide.weights, *narrow.weights]

    def step(x: Any) -> list[ot.Tensor]:
        with ot.GradientTape() as tape:
            y = attention(x, x, use_causal_mask=True)
            loss = ops.mean(ops.square(narrow(wide(y))))
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
        return [loss, *gradients]

    before = [v.numpy() for v in variables]
    expected = [np.asarray(value) for value in step(x)]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    compiled = ot.function(step, fallback="error")
    for value, other in zip(compiled(x), expected, strict=True):
        np.testing.assert_allclose(np.asarray(value), other, rtol=1e-4, atol=1e-6)
    # Queries, keys, values and the gradient of what they give, to heads first; the output and the
    # three gradients back; and the queries turned, which ONNX Runtime joins with their product.
    (model,) = ran
    heads = [n for n in model.graph if n.op_type == "Transpose" and len(_perm(n)) == 4]
    assert len(heads) == 9
    assert sum(n.op_type == "FusedMatMul" for n in model.graph) > 3
    exported = Counter(n.domain for n in compiled.get_concrete_function(x).model.graph.node)
    assert set(exported) == {""}
