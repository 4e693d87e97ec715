"""One trace of a function, ready to run."""

from __future__ import annotations

import itertools
import platform
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxtape import debugging, nest
from onnxtape.arguments import Arguments
from onnxtape.capturing import captured_step
from onnxtape.cells import VariableCell, blocks_of, bound_blocks
from onnxtape.compiler.errors import Provenance, located, meaning_of_failure
from onnxtape.compiler.fingerprint import compiler_fingerprint, fingerprint
from onnxtape.compiler.passes import GraphPass, run_passes
from onnxtape.compiler.passes.blocked.convolutions import BlockedConvolutions
from onnxtape.compiler.passes.blocked.kernel_gradients import MarkKernelGradients
from onnxtape.compiler.passes.costs import estimated_seconds
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.early import MakeEarly
from onnxtape.compiler.passes.packing import Packed, schedule_packed
from onnxtape.compiler.passes.pieces import Block
from onnxtape.compiler.passes.products.scaled import ScaledLayers
from onnxtape.compiler.passes.products.transposed_operands import TransposedOperands
from onnxtape.compiler.passes.products.weight_gradients import WideOperandsFirst
from onnxtape.compiler.passes.rematerialize import Rematerialize, estimated_peak
from onnxtape.compiler.passes.schedule import recomputed_values, schedule_updates
from onnxtape.compiler.passes.views import MergeViews
from onnxtape.devices import Place, Places, place_of_state
from onnxtape.errors import ExecutionError, InputError
from onnxtape.runtime.blocked_layout import block_size
from onnxtape.runtime.captured import wants_capture, without_capture
from onnxtape.runtime.graph_cache import CachedGraph, cache_key, graph_cache
from onnxtape.runtime.placement import Placement, placement
from onnxtape.runtime.providers import primary_provider
from onnxtape.runtime.session import create_session, thread_count
from onnxtape.runtime.shares import Share, Shares
from onnxtape.runtime.step import CompiledStep, StateBinding
from onnxtape.signature import mismatch
from onnxtape.tensor import Tensor
from onnxtape.tracing import InputSpec, StateEntry, TracedStep
from onnxtape.variable import Changes, Variable

if TYPE_CHECKING:
    import onnx

    from onnxtape.runtime.providers import Providers


#: Steps whose operators are smaller than this, on average, feel what taking memory costs.
_SMALL_BYTES = 1 << 14
#: Steps that one thread does in less time, by estimate, do not use a second one: what the threads
#: write for each other has to move between their caches, which may take more time than it saves.
_BRIEF_SECONDS = 5e-4

_CONVOLUTIONS = frozenset(["Conv", "ConvTranspose"])


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
            self._step = _compile(traced, place) if traced.raw.graph.outputs else None
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
        lines = {node.name: _line(node) for node in self.traced.model.graph.all_nodes()}
        nodes = placement(self.model.SerializeToString(), self._place.providers)
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


def packs_updates(traced: TracedStep, providers: Providers) -> bool:
    """Whether the step's updates are packed: on the CPU, unless all passes are left out."""
    return bool(traced.passes) and primary_provider(providers) == "cpu"


def _line(node: ir.Node) -> str:
    place = Provenance.from_metadata(node.metadata_props)
    return f"{place.file}:{place.line}" if place.file else ""


def _compile(traced: TracedStep, place: Place) -> CompiledStep:
    """Open a session for the step.

    ONNX Runtime optimizes the graph once and hands it back; that graph is put into an order in
    which state can be overwritten, and is then run as it stands. (An order chosen before ONNX
    Runtime's own rewrites would prove nothing.) Later processes find it in the cache on disk.
    """
    providers = place.providers
    if wants_capture(providers):
        cells = [VariableCell(variable) for variable in traced.variables]
        captured = captured_step(traced, place, cells, _optimized_model)
        if captured is not None:
            return captured
        providers = without_capture(providers)
    outputs = {s.input_name: s.output_name for s in traced.state if s.output_name is not None}
    in_place: frozenset[str] = frozenset()
    packed: list[Block] = []
    apart: list[bytes] = []
    made = _ready_to_run(traced, outputs, providers) if outputs else None
    if made is not None:
        in_place = frozenset(made.notes["in_place"])
        packed = [Block(**block) for block in made.notes["blocks"]]
        model, *apart = _parts(made)
        session = create_session(
            model,
            providers,
            optimize=False,
            in_order=True,
            threads=1 if made.notes["brief"] else None,
            memory_pattern=made.notes["small"],
            spin_between_runs=not apart,
        )
    else:
        model = ir.to_proto(_model_to_run(traced, providers)).SerializeToString()
        session = create_session(model, providers, merge_equal=False)
    inside = {name for block in packed for name in block.members}
    state = [
        StateBinding(
            VariableCell(variable),
            entry.input_name,
            entry.output_name,
            in_place=entry.input_name in in_place,
        )
        for entry, variable in zip(traced.state, traced.variables, strict=True)
        if entry.input_name not in inside
    ]
    blocks = blocks_of(packed, traced)
    shares = []
    for share in apart:
        single = create_session(share, providers, optimize=False, in_order=True, threads=1)
        shares.append(Share(single, bound_blocks(packed, blocks, single)))
    return CompiledStep(
        session,
        [s.name for s in traced.inputs],
        traced.output_names,
        state,
        bound_blocks(packed, blocks, session),
        place.device,
        Shares(shares) if shares else None,
    )


def _parts(made: CachedGraph) -> list[bytes]:
    """The step's graph, and those of the shares of its updates."""
    ends = list(itertools.accumulate(made.notes["lengths"], initial=0))
    return [made.model[begin:end] for begin, end in itertools.pairwise(ends)]


def _ready_to_run(
    traced: TracedStep, outputs: Mapping[str, str], providers: Providers
) -> CachedGraph | None:
    """The step's graph, optimized and in order, from the cache if it has been made before; None
    where it cannot be had."""
    cache = graph_cache()
    if cache is None:
        return _optimized(traced, outputs, providers)
    parts = {
        "graph": fingerprint(traced.raw),
        "passes": str([graph_pass.key for graph_pass in traced.passes]),
        "compiler": compiler_fingerprint(),
        "state": str(sorted(outputs.items())),
        "packed": str(packs_updates(traced, providers) and thread_count()),
    }
    key = cache_key(parts, providers)
    found = cache.load(key)
    if found is None:
        found = _optimized(traced, outputs, providers)
        if found is not None:
            cache.store(key, found)
    return found


def _optimized(
    traced: TracedStep, outputs: Mapping[str, str], providers: Providers
) -> CachedGraph | None:
    model = _model_to_run(traced, providers)
    optimized = _optimized_model(ir.to_proto(model).SerializeToString(), providers)
    if optimized is None:
        return None
    late = recomputed_values(model)
    brief = estimated_seconds(model.graph) < _BRIEF_SECONDS
    if packs_updates(traced, providers):
        run_passes(optimized, [MergeViews(late), RemoveDeadCode(), MakeEarly(late)])
        packed = schedule_packed(
            optimized, outputs, late, thread_count(), _has_row_kernels(), single=brief
        )
    else:
        packed = Packed(schedule_updates(optimized, outputs, late), [], [])
    graphs = (optimized, *packed.shares)
    models = [ir.to_proto(each).SerializeToString() for each in graphs]
    graph = model.graph
    frugal = any(isinstance(graph_pass, Rematerialize) for graph_pass in traced.passes)
    notes = {
        "in_place": sorted(packed.in_place),
        "blocks": [asdict(block) for block in packed.blocks],
        "lengths": [len(model) for model in models],
        "brief": brief,
        "small": not frugal and estimated_peak(graph) < _SMALL_BYTES * len(graph),
    }
    return CachedGraph(b"".join(models), notes)


def _has_row_kernels() -> bool:
    """Whether ONNX Runtime has the kernels here that `compiler.passes.stacking` is about."""
    return platform.machine().lower() in ("x86_64", "amd64")


def _model_to_run(traced: TracedStep, providers: Providers) -> ir.Model:
    """The step's graph with what only ONNX Runtime's own CPU kernels know; not to be exported."""
    if not packs_updates(traced, providers):
        return traced.model
    products: list[GraphPass] = [TransposedOperands(), WideOperandsFirst(), ScaledLayers()]
    # Finding the size opens a session: only where it matters.
    convolves = any(node.op_type in _CONVOLUTIONS for node in traced.raw.graph)
    block = block_size() if convolves else 0
    if not block:
        return traced.rewritten([], products)
    return traced.rewritten(
        [MarkKernelGradients(block)],
        [BlockedConvolutions(block, thread_count()), *products, RemoveDeadCode()],
    )


def _optimized_model(model: bytes, providers: Providers) -> ir.Model | None:
    """The graph that ONNX Runtime makes of a step; None where that cannot be had."""
    with tempfile.TemporaryDirectory(prefix="onnxtape-") as folder:
        path = Path(folder) / "optimized.onnx"
        try:
            # Equal nodes that are left by now are left on purpose: see `ot.recompute`.
            create_session(model, providers, merge_equal=False, threads=1, optimized_path=path)
        except ExecutionError as error:
            # Some providers compile parts of the graph to something that ONNX has no form for.
            if "compiled nodes" not in str(error):
                raise
            return None
        return ir.load(path)
