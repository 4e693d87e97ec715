"""The graph that a session on CUDA would be opened on, and the same run on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

import onnxtape as ot
from onnxtape.compiler.passes import run_passes
from onnxtape.compiler.passes.widened import ComputeInFloat32
from onnxtape.compiler.target import Target
from onnxtape.concrete import ConcreteFunction
from onnxtape.runtime.devices import fetch
from onnxtape.runtime.session import create_session
from tests.cuda.steps import Step

CUDA = Target("cuda")


def traced(step: Step) -> ConcreteFunction:
    return ot.function(step.function, fallback="error").get_concrete_function(*step.batch)


def cuda_graph(step: Step) -> ir.Model:
    return traced(step).traced.rewritten(CUDA)


def run_on_cpu(
    model: ir.Model, concrete: ConcreteFunction, batch: Sequence[Any]
) -> Mapping[str, Any]:
    """All results and new values of a step's graph, from its variables' values."""
    # Of bfloat16 the CPU has other kernels than CUDA, if any.
    run_passes(model, [ComputeInFloat32()])
    session = create_session(ir.to_proto(model).SerializeToString(), threads=1)
    feeds = dict(zip((s.name for s in concrete.inputs), map(np.asarray, batch), strict=True))
    for entry, variable in zip(concrete.state, concrete.variables, strict=True):
        feeds[entry.input_name] = np.array(variable.numpy())
    taken = {x.name for x in session.get_inputs()}
    names = [x.name for x in session.get_outputs()]
    values = session._sess.run_with_ort_values(
        {name: _value(array) for name, array in feeds.items() if name in taken}, names, None
    )
    return {name: np.array(fetch(values[i])) for i, name in enumerate(names)}


def _value(array: Any) -> Any:
    from onnxtape.runtime.values import copy_from_numpy

    return copy_from_numpy(array)
