"""One trace of a function, ready to run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxtape import debugging, nest
from onnxtape.arguments import Arguments
from onnxtape.compilation import compile_step, model_to_run
from onnxtape.compiler.errors import Provenance, located, meaning_of_failure
from onnxtape.compiler.passes.rematerialize import estimated_peak
from onnxtape.devices import Place, Places, place_of_state
from onnxtape.errors import ExecutionError, InputError
from onnxtape.runtime.placement import Placement, placement
from onnxtape.signature import mismatch
from onnxtape.tensor import Tensor
from onnxtape.tracing import InputSpec, StateEntry, TracedStep
from onnxtape.variable import Changes, Variable

if TYPE_CHECKING:
    import onnx

    from onnxtape.runtime.providers import Providers


class ConcreteFunction:
    """A compiled graph, its batch inputs and its state.

    Attributes:
        inputs: the batch inputs, in order.
        output_names: the results' names in the graph.
        state: one entry per state variable.
    """

    def __init__(self, traced: TracedStep, providers: Providers = None) -> None:
        self.traced = traced
        self.inputs: list[InputSpec] = traced.inputs
        self.output_names: list[str] = traced.output_names
        self.state: list[StateEntry] = traced.state
        if providers is None:
            place = place_of_state([v._tensor._ort for v in traced.variables])
        else:
            place = Place(providers)
            Places.use(place)
        self._place = place
        # A function that computes nothing has no graph to open.
        try:
            self._step = compile_step(traced, place) if traced.raw.graph.outputs else None
        except ExecutionError as error:
            raise _explained(error, traced) from None
        self._bound_at = -1
        # Threads may call the same step; its bindings are one run's at a time.
        self._lock = threading.Lock()
        self._single = not isinstance(traced.returned, (dict, list, tuple))

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The graph as plain ONNX: batch inputs and state in, results and new state out."""
        return ir.to_proto(self.traced.model)

    @cached_property
    def estimated_peak_bytes(self) -> int:
        """The most that values between operators take at once, if each has memory of its own.

        ONNX Runtime lets some operators overwrite what they read, and takes less.
        """
        return estimated_peak(self.traced.model.graph)

    @property
    def variables(self) -> list[Variable]:
        """The variables behind `state`, in its order."""
        return self.traced.variables

    @property
    def in_place_count(self) -> int:
        """How many state entries are updated in their own buffer."""
        return 0 if self._step is None else self._step.in_place_count

    def placement(self) -> Placement:
        """Which execution provider runs which node, with the user's lines that they stem from.

        `placement().on_cpu` is what fell to the CPU where another provider was asked for.

        Raises:
            ExecutionError: ONNX Runtime is older than 1.24.
        """
        model, _ = model_to_run(self.traced, self._place.providers)
        lines = {node.name: _line(node) for node in model.graph.all_nodes()}
        nodes = placement(ir.to_proto(model).SerializeToString(), self._place.providers)
        return Placement([node._replace(place=lines.get(node.name, "")) for node in nodes])

    def __call__(self, *args: Any) -> Any:
        """Run on the batch inputs, in order.

        Raises:
            InputError: a wrong number, dtype or shape.
        """
        arguments = Arguments(args, lambda structure, place: True)
        if len(arguments.places) != len(self.inputs):
            raise InputError(
                f"this graph has {len(self.inputs)} inputs "
                f"({', '.join(s.name for s in self.inputs)}), "
                f"but {len(arguments.places)} were given"
            )
        for spec, dtype in zip(self.inputs, arguments.dtypes, strict=True):
            if dtype != spec.dtype:
                raise InputError(f"input '{spec.name}' has dtype {dtype}, not {spec.dtype}")
        names = [spec.name for spec in self.inputs]
        shapes: Any = arguments.shapes
        if problem := mismatch(names, [spec.shape for spec in self.inputs], shapes):
            raise InputError(problem)
        return self.run(arguments.ort_values())

    def run(self, values: Sequence[Any]) -> Any:
        """Run on OrtValues that fit; returns what the Python function returned, with tensors.

        Raises:
            ExecutionError: an operator failed, on an index out of range say.
        """
        step = self._step
        with self._lock:
            if step is None:
                outputs = []
            elif debugging.checking_numerics():
                outputs = debugging.run_checked(self.traced, values)
            else:
                if self._bound_at != Changes.count:
                    step.rebind()
                    self._bound_at = Changes.count
                try:
                    outputs = step.run(values)
                except ExecutionError as error:
                    raise _explained(error, self.traced) from None
        results = self.traced.results
        if self._single:
            index, constant = results[0]
            return constant if index is None else Tensor._from_ort(outputs[index])
        leaves = [
            constant if index is None else Tensor._from_ort(outputs[index])
            for index, constant in results
        ]
        return nest.pack_like(self.traced.returned, leaves)


def _explained(error: ExecutionError, traced: TracedStep) -> ExecutionError:
    """The error with the user's place, and what it means, if it names one of the trace's nodes."""
    for node in traced.model.graph.all_nodes():
        if f"'{node.name}'" in str(error):
            meaning = meaning_of_failure(node.op_type, node.metadata_props)
            if meaning:
                return ExecutionError(f"the step failed: {meaning}")
            place = Provenance.from_metadata(node.metadata_props)
            return ExecutionError(located(str(error), place))
    return error


def _line(node: ir.Node) -> str:
    place = Provenance.from_metadata(node.metadata_props)
    return f"{place.file}:{place.line}" if place.file else ""
