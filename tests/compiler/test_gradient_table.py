"""The gradient table covers ONNX: no operator is forgotten, and each of the others has a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxtape.compiler import GradientError, differentiable_operators, differentiate, registry
from onnxtape.compiler.dtypes import is_floating
from tests.compiler.graphs import FLOAT64, new_graph

#: The newest opset that ONNX Runtime runs.
OPSET = 26

#: Operators of opsets beyond that: nothing to be done about them yet.
BEYOND = {"CausalConvWithState", "LinearAttention", "SwiGLU"}

SCHEMAS = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]


def tables() -> list[set[str]]:
    refused, zero = registry.refusals(), registry.zero_gradients()
    return [set(differentiable_operators()), set(zero), set(refused)]


def test_every_operator_of_onnx_is_accounted_for() -> None:
    """A new release of onnx with new operators fails here."""
    missing = {s.name for s in SCHEMAS} - set.union(*tables())
    assert missing <= BEYOND
    assert missing.isdisjoint(s.name for s in SCHEMAS if s.since_version <= OPSET)


def test_every_operator_is_in_one_table() -> None:
    names = [name for table in tables() for name in table]
    assert len(names) == len(set(names))
    assert set(names) - {s.name for s in SCHEMAS} == set()


def test_every_reason_is_given() -> None:
    reasons = {**registry.zero_gradients(), **registry.refusals()}
    assert [op for op, reason in reasons.items() if not reason.strip()] == []


#: Inputs and attributes of operators whose floating-point results carry no derivative, though they
#: take floating-point numbers.
CONSTANT: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Hardmax", [np.zeros((2, 3))], {}),
    ("Bernoulli", [np.full((2, 3), 0.5)], {}),
    ("Bernoulli", [np.full((2, 3), 0.5)], {"dtype": 1}),
    ("EyeLike", [np.zeros((2, 2))], {}),
    ("RandomNormalLike", [np.zeros((2, 3))], {}),
    ("RandomUniformLike", [np.zeros((2, 3))], {}),
    ("MelWeightMatrix", [*(np.asarray(n) for n in (8, 16, 8192)), 0.0, 4096.0], {}),
]


@pytest.mark.parametrize(("op", "inputs", "attributes"), CONSTANT)
def test_no_derivative(op: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    graph, b = new_graph()
    operands, sources = [], []
    for i, x in enumerate(map(np.asarray, inputs)):
        if is_floating(x.dtype):
            sources.append(b.input(f"x{i}", x.dtype, x.shape))
            operands.append(sources[-1])
        else:
            operands.append(b.constant(x))
    y = b.op(op, *operands, **attributes)
    assert is_floating(b.dtype(y))
    assert differentiate(graph, [y], sources) == [None] * len(sources)


def test_bits_are_not_differentiated() -> None:
    graph, b = new_graph(OPSET)
    x = b.input("x", np.dtype(np.float16), (3,))
    y = b.op("Cast", b.op("BitCast", x, to=16), to=11)
    with pytest.raises(GradientError, match=r"BitCast .*takes the bits of one number for another"):
        differentiate(graph, [y], [x])


def test_an_ellipsis_of_unknown_rank_is_refused() -> None:
    graph, b = new_graph()
    x, shape = b.input("x", FLOAT64, (6,)), b.input("shape", np.dtype(np.int64), ("rank",))
    y = b.op("Einsum", b.op("Reshape", x, shape), equation="...i->...")
    with pytest.raises(GradientError, match="the rank of an operand with an ellipsis is unknown"):
        differentiate(graph, [y], [x])
