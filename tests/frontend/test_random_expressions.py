"""Random expressions: eager and compiled agree, and so do central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxtape as ot

ops = ot.ops

UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "exp": lambda x: ops.exp(ops.tanh(x)),
    "log": lambda x: ops.log(1.5 + ops.square(x)),
    "sqrt": lambda x: ops.sqrt(1.5 + ops.square(x)),
    "square": ops.square,
    "negate": lambda x: -x,
    "mean": lambda x: x - ops.mean(x, axis=0, keepdims=True),
    "sum": lambda x: x + ops.sum(x, axis=1, keepdims=True),
    "transpose": lambda x: ops.matmul(x, ops.transpose(x)) @ x,
    "reverse": lambda x: x[::-1] * 2,
    "concatenate": lambda x: ops.concatenate([x[1:], x[:1]], axis=0),
    "reshape": lambda x: ops.reshape(ops.reshape(x, (-1,)) * 3, x.shape),
    "where": lambda x: ops.where(x > 0, x * x, 2 * x),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - 2 * y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / (1.5 + ops.square(y)),
    "row": lambda x, y: x * y[:1],
    "column": lambda x, y: x + y[:, :1],
    "matmul": lambda x, y: ops.matmul(ops.matmul(x, ops.transpose(y)), y),
}
Tree = Any  # a leaf's number, or an operation's name with its operands
trees = st.recursive(
    st.integers(0, 2),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(sorted(UNARY)), inner),
        st.tuples(st.sampled_from(sorted(BINARY)), inner, inner),
    ),
    max_leaves=6,
)


def evaluate(tree: Tree, leaves: list[Any]) -> Any:
    if isinstance(tree, int):
        return leaves[tree]
    name, *operands = tree
    # Kept small, so that central differences stay exact enough.
    values = [ops.tanh(evaluate(operand, leaves)) for operand in operands]
    return (UNARY if name in UNARY else BINARY)[name](*values)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(tree=trees, rows=st.integers(2, 4), symbolic=st.booleans())
def test_random_expressions(tree: Tree, rows: int, symbolic: bool) -> None:
    rng = np.random.default_rng(rows)
    arrays = [rng.uniform(-1, 1, (rows, 3)) for _ in range(3)]

    def step(*leaves: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(leaves)
            value = ops.sum(ops.tanh(evaluate(tree, list(leaves))))
        return value, tape.gradient(value, list(leaves), unconnected_gradients="zero")

    function = ot.function(step, fallback="error")
    if symbolic:
        specs = [ot.TensorSpec((None, 3), "float64")] * 3
        value, gradients = function.get_concrete_function(*specs)(*arrays)
    else:
        value, gradients = function(*arrays)
    eager_value, eager_gradients = step(*[ot.convert_to_tensor(a) for a in arrays])
    assert float(value) == pytest.approx(float(eager_value), rel=1e-10, abs=1e-12)
    for one, other in zip(gradients, eager_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)

    direction = [rng.uniform(-1, 1, a.shape) for a in arrays]
    ends = [
        float(function(*[a + sign * 1e-6 * d for a, d in zip(arrays, direction, strict=True)])[0])
        for sign in (1, -1)
    ]
    slope = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(gradients, direction, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-6)
