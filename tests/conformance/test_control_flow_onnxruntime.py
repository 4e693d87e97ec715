"""Gradients of control flow in ONNX Runtime, against ONNX's reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxtape.compiler import GraphBuilder, differentiate
from tests.compiler.control_flow_programs import PROGRAMS, graph_of
from tests.compiler.graphs import Array, Evaluator, model_of

RUNS = [
    pytest.param(name, feeds, id=f"{name}-{i}")
    for name, program in PROGRAMS.items()
    for i, feeds in enumerate([program.feeds, *program.others])
]


@pytest.mark.parametrize(("name", "feeds"), RUNS)
def test_first_and_second_derivatives(name: str, feeds: Mapping[str, Array]) -> None:
    graph = graph_of(PROGRAMS[name])
    b = GraphBuilder(graph)
    sources = [v for v in graph.inputs if v.dtype == ir.DataType.DOUBLE]
    first = [g for g in differentiate(graph, list(graph.outputs), sources) if g is not None]
    second = [g for g in differentiate(graph, first, sources) if g is not None]
    for k, gradient in enumerate([*first, *second]):
        output = b.op("Identity", gradient)
        output.name = f"gradient_{k}"
        graph.outputs.append(output)
    session = ort.InferenceSession(ir.to_proto(model_of(graph)).SerializeToString())
    expected = Evaluator(graph)(feeds)
    for found, value in zip(session.run(None, dict(feeds)), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12)
