"""From a traced step to a session that runs it in place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxtape.compiler.passes.schedule import schedule_updates
from onnxtape.runtime.providers import Providers
from onnxtape.runtime.session import create_session
from onnxtape.runtime.step import CompiledStep, StateBinding
from onnxtape.tracing import TracedStep
from onnxtape.variable import Variable


class VariableCell:
    """A variable as the runtime's `StateCell`."""

    __slots__ = ("_variable",)

    def __init__(self, variable: Variable) -> None:
        self._variable = variable

    def current(self) -> Any:
        return self._variable._tensor._ort

    def exclusive(self) -> Any:
        return self._variable._buffer()

    def is_exclusive(self) -> bool:
        return self._variable._is_exclusive()

    def replace(self, value: Any) -> None:
        self._variable._set(value)


def compile_step(
    traced: TracedStep, providers: Providers = None, *, in_place: bool = True
) -> CompiledStep:
    """Open a session for the step.

    ONNX Runtime optimizes the graph once and hands it back; that graph is put into an order in which
    state can be overwritten, and is then run as it stands. (An order chosen before ONNX Runtime's
    own rewrites would prove nothing.)
    """
    model = ir.to_proto(traced.model).SerializeToString()
    outputs = {s.input_name: s.output_name for s in traced.state if s.output_name is not None}
    safe: frozenset[str] = frozenset()
    if in_place and outputs:
        with tempfile.TemporaryDirectory(prefix="onnxtape-") as folder:
            path = Path(folder) / "optimized.onnx"
            create_session(model, providers, threads=1, optimized_path=path)
            optimized = ir.load(path)
            safe = schedule_updates(optimized, outputs)
            scheduled = ir.to_proto(optimized).SerializeToString()
        session = create_session(scheduled, providers, optimize=False, in_order=True)
    else:
        session = create_session(model, providers)
    bindings = [
        StateBinding(
            VariableCell(variable),
            entry.input_name,
            entry.output_name,
            in_place=entry.input_name in safe,
        )
        for entry, variable in zip(traced.state, traced.variables, strict=True)
    ]
    return CompiledStep(session, [s.name for s in traced.inputs], traced.output_names, bindings)
