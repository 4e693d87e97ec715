"""What the gradient rules emit runs on stock ONNX Runtime, in float32, and is right there.

The table of cases and the central differences (float64, ONNX's reference evaluator) are those of
`tests/compiler/test_gradients.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from onnxtape.compiler import differentiate
from tests.compiler.cases import CASES, Case, Fixed
from tests.compiler.graphs import Array, model_of, new_graph
from tests.compiler.test_gradients import build, expected, gradients, variants


def in_float32(case: Case) -> Case:
    def convert(x: Any) -> Any:
        if isinstance(x, Fixed):
            return Fixed(convert(x.array))
        is_double = x is not None and np.asarray(x).dtype == np.float64
        return np.asarray(x, np.float32) if is_double else x

    return replace(case, inputs=[convert(x) for x in case.inputs])


def run_onnxruntime(graph: ir.Graph, outputs: list[ir.Value], feeds: dict[str, Array]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # An output is a node's own, and named once.
    graph.outputs.extend(dict.fromkeys(v for v in outputs if v.producer() is not None))
    model = ir.to_proto(model_of(graph)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = [v.name for v in graph.outputs]
    found = dict(zip(wanted, session.run(wanted, feeds), strict=True)) if wanted else {}
    return [found[v.name] if v.name in found else feeds[v.name or ""] for v in outputs]


@pytest.mark.parametrize(
    ("index", "variant"),
    [
        pytest.param(i, variant, id=f"{case.id}-{variant}")
        for i, case in enumerate(CASES)
        if case.portable
        for variant in ("static", variants(case)[-1])
    ],
)
def test_on_onnxruntime(index: int, variant: str) -> None:
    case = in_float32(CASES[index])
    built = build(case, variant)
    found = run_onnxruntime(built.graph, gradients(built, case), built.feeds)
    for gradient, source, numeric in zip(found, built.sources, expected(index), strict=True):
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(
            gradient, numeric, rtol=1e-3, atol=1e-4, err_msg=f"by {source.name}"
        )


@pytest.mark.parametrize("outputs", [1, 2])
def test_dropout_passes_gradients_where_it_passed_elements(outputs: int) -> None:
    """In one run: the random numbers are ONNX Runtime's own."""
    graph, b = new_graph()
    x, g = (b.input(name, np.dtype(np.float32), (4, 50)) for name in ("x", "g"))
    on = b.constant(np.asarray(True))
    y, *_ = b.op_multi("Dropout", x, np.asarray(0.25, np.float32), on, outputs=outputs)
    (by_x,) = differentiate(graph, [y], [x], [g])
    assert by_x is not None
    ones = np.ones((4, 50), np.float32)
    kept, gradient = run_onnxruntime(graph, [y, by_x], {"x": ones, "g": ones})
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_allclose(gradient, kept, rtol=1e-6)
