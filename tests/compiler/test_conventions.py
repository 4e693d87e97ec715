"""Where a derivative does not exist, its value is PyTorch's.

The points and PyTorch's words are in `tests/reference/conventions.py`, its numbers are stored
beside it; `tests/peers` makes them again, `tests/frontend` has functions of several operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import differentiate
from tests.compiler.graphs import Array, Evaluator, new_graph
from tests.reference.conventions import CONVENTIONS, FUNCTIONS, Convention, Fixed

STORED = Path(__file__).parent.parent / "reference" / "torch_conventions.npz"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CONVENTIONS])
def test_as_pytorch(case: Convention, dtype: Any) -> None:
    if case.op == "Celu" and dtype == np.float64:
        pytest.skip("ONNX's Celu takes float32 only")
    gradients = differentiated(case.op, case.inputs, case.attributes, dtype)
    tolerance = 1e-6 if dtype == np.float32 else 1e-7  # attributes are float32 in either case
    with np.load(STORED) as stored:
        for i, gradient in zip(case.sources(), gradients, strict=True):
            expected = stored[f"{case.name} {i}"]
            np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance)


def test_every_stored_gradient_is_compared() -> None:
    with np.load(STORED) as stored:
        assert set(stored) == {
            f"{c.name} {i}" for c in (*CONVENTIONS, *FUNCTIONS) for i in c.sources()
        }


def test_the_first_of_equals_is_the_unique_one() -> None:
    """PyTorch has no gradient of unique; ONNX's indices point at the first of equals."""
    (found,) = differentiated("Unique", [[3.0, 1.0, 3.0, 1.0, 2.0]], {}, np.float64)
    np.testing.assert_array_equal(found, [3.0, 1.0, 0.0, 0.0, 2.0])


def differentiated(
    op: str, inputs: list[Any], attributes: dict[str, Any], dtype: Any
) -> list[Array]:
    """Of the first output, weighted by 1, 2, 3, ..., by the inputs that are lists and numbers."""
    graph, b = new_graph(26 if op == "CumProd" else 21)
    operands: list[ir.Value | None] = []
    sources: list[ir.Value] = []
    feeds: dict[str, Array] = {}
    for i, x in enumerate(inputs):
        if x is None:
            operands.append(None)
        elif isinstance(x, Fixed):
            operands.append(b.constant(np.asarray(x.array, dtype)))
        elif isinstance(x, np.ndarray):
            operands.append(b.constant(x))
        else:
            feeds[f"x{i}"] = np.asarray(x, dtype)
            sources.append(b.input(f"x{i}", np.dtype(dtype), feeds[f"x{i}"].shape))
            operands.append(sources[-1])
    y = b.op_multi(op, *operands, outputs=2 if op == "TopK" else 1, **attributes)[0]
    (shape,) = (value.shape for value in Evaluator(graph, [y])(feeds))
    feeds["g"] = np.arange(1, np.prod(shape) + 1, dtype=dtype).reshape(shape)
    gradients = differentiate(graph, [y], sources, [b.input("g", np.dtype(dtype), shape)])
    zeros = [np.zeros_like(feeds[source.name or ""]) for source in sources]
    found = iter(Evaluator(graph, [g for g in gradients if g is not None])(feeds))
    return [z if g is None else next(found) for g, z in zip(gradients, zeros, strict=True)]


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round", "Sign"])
def test_steps_carry_no_gradient(op: str) -> None:
    """Their derivative is zero wherever it exists; the source counts as unconnected."""
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.float64), (3,))
    assert differentiate(graph, [b.op(op, x)], [x]) == [None]
