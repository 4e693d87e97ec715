"""From a trace to a step that runs: the graphs that sessions are opened on, and the sessions.

ONNX Runtime optimizes a step's graph once and hands it back; that graph is put into an order in
which state can be overwritten, and is then run as it stands. (An order chosen before ONNX Runtime's
own rewrites would prove nothing.) Later processes find it in the cache on disk.
"""

from __future__ import annotations

import itertools
import platform
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxtape import tracing
from onnxtape.capturing import captured_step
from onnxtape.cells import VariableCell, blocks_of, bound_blocks
from onnxtape.compiler.fingerprint import compiler_fingerprint, fingerprint
from onnxtape.compiler.passes import GraphPass, applies, run_passes
from onnxtape.compiler.passes.add_to_rows import AddToRows
from onnxtape.compiler.passes.blocked.convolutions import BlockedConvolutions
from onnxtape.compiler.passes.blocked.kernel_gradients import MarkKernelGradients
from onnxtape.compiler.passes.costs import estimated_seconds
from onnxtape.compiler.passes.dead_code import RemoveDeadCode
from onnxtape.compiler.passes.early import MakeEarly
from onnxtape.compiler.passes.packing import Packed, schedule_packed
from onnxtape.compiler.passes.pieces import Block
from onnxtape.compiler.passes.products.scaled import ScaledLayers
from onnxtape.compiler.passes.products.transposed_operands import TransposedOperands
from onnxtape.compiler.passes.products.turned_squares import SquareTurned
from onnxtape.compiler.passes.products.weight_gradients import WideOperandsFirst
from onnxtape.compiler.passes.rematerialize import Rematerialize, estimated_peak
from onnxtape.compiler.passes.repeated_rows import GatherRepeatedRows
from onnxtape.compiler.passes.schedule import recomputed_values, schedule_updates
from onnxtape.compiler.passes.selections import SelectByBits, selections
from onnxtape.compiler.passes.signs import SignsByClip
from onnxtape.compiler.passes.views import MergeViews
from onnxtape.compiler.sharding.split import FIRST_SAMPLE, Split, part_name, split_batch
from onnxtape.compiler.target import CPU, Target
from onnxtape.errors import ExecutionError
from onnxtape.runtime.batch_parts import BatchParts
from onnxtape.runtime.bit_casts import has_bit_cast
from onnxtape.runtime.blocked_layout import block_size
from onnxtape.runtime.captured import wants_capture, without_capture
from onnxtape.runtime.graph_cache import CachedGraph, cache_key, graph_cache
from onnxtape.runtime.providers import primary_provider
from onnxtape.runtime.session import create_session, thread_count
from onnxtape.runtime.shares import Share, Shares
from onnxtape.runtime.step import CompiledStep, StateBinding
from onnxtape.tracing import TracedStep

if TYPE_CHECKING:
    from onnxtape.devices import Place
    from onnxtape.runtime.providers import Providers

#: Steps whose operators are smaller than this, on average, feel what taking memory costs.
_SMALL_BYTES = 1 << 14
#: Steps that one thread does in less time, by estimate, do not use a second one: what the threads
#: write for each other has to move between their caches, which may take more time than it saves.
_BRIEF_SECONDS = 5e-4


def compile_step(traced: TracedStep, place: Place) -> CompiledStep:
    """Open the sessions of a step."""
    providers = place.providers
    if wants_capture(providers):
        cells = [VariableCell(variable) for variable in traced.variables]
        captured = captured_step(traced, place, cells, _optimized_model)
        if captured is not None:
            return captured
        providers = without_capture(providers)
    outputs = {s.input_name: s.output_name for s in traced.state if s.output_name is not None}
    made = _ready_to_run(traced, outputs, providers) if outputs else None
    if made is not None:
        return _opened(traced, place, providers, made)
    model, _ = model_to_run(traced, providers)
    session = create_session(ir.to_proto(model).SerializeToString(), providers, merge_equal=False)
    state = _bindings(traced, frozenset(), frozenset())
    inputs = [s.name for s in traced.inputs]
    return CompiledStep(session, inputs, traced.output_names, state, device=place.device)


def _opened(
    traced: TracedStep, place: Place, providers: Providers, made: CachedGraph
) -> CompiledStep:
    """The step whose graphs have been made."""
    notes, graphs = made.notes, _graphs(made)
    in_parts = notes["samples"] is not None
    part = graphs.pop() if in_parts else None
    model, *apart = graphs
    session = create_session(
        model,
        providers,
        optimize=False,
        in_order=True,
        threads=1 if notes["brief"] else None,
        memory_pattern=notes["small"],
        spin_between_runs=not (apart or in_parts),
    )
    packed = [Block(**block) for block in notes["blocks"]]
    blocks = blocks_of(packed, traced)
    shares = []
    for share in apart:
        single = create_session(share, providers, optimize=False, in_order=True, threads=1)
        shares.append(Share(single, bound_blocks(packed, blocks, single)))
    inside = {name for block in packed for name in block.members}
    return CompiledStep(
        session,
        [s.name for s in traced.inputs],
        traced.output_names,
        _bindings(traced, frozenset(notes["in_place"]), inside),
        bound_blocks(packed, blocks, session),
        place.device,
        Shares(shares) if shares else None,
        None if part is None else _batch_parts(traced, providers, part, notes),
    )


def _bindings(
    traced: TracedStep, in_place: Collection[str], inside: Collection[str]
) -> list[StateBinding]:
    """The state that is not inside of blocks."""
    return [
        StateBinding(
            VariableCell(variable),
            entry.input_name,
            entry.output_name,
            in_place=entry.input_name in in_place,
        )
        for entry, variable in zip(traced.state, traced.variables, strict=True)
        if entry.input_name not in inside
    ]


def _batch_parts(
    traced: TracedStep, providers: Providers, part: bytes, notes: Mapping[str, Any]
) -> BatchParts:
    count = thread_count()
    single = create_session(
        part,
        providers,
        optimize=False,
        in_order=True,
        threads=1,
        memory_pattern=notes["small"],
    )
    pairs = zip(traced.state, traced.variables, strict=True)
    made = [value.name for value in single.get_outputs()]
    return BatchParts(
        single,
        FIRST_SAMPLE,
        notes["samples"],
        count,
        [s.name for s in traced.inputs],
        {entry.input_name: VariableCell(variable) for entry, variable in pairs},
        {name: [part_name(name, i) for i in range(count)] for name in made},
    )


def _graphs(made: CachedGraph) -> list[bytes]:
    """The step's graph, those of the shares of its updates, and that of the parts of the batch."""
    ends = list(itertools.accumulate(made.notes["lengths"], initial=0))
    return [made.model[begin:end] for begin, end in itertools.pairwise(ends)]


def _ready_to_run(
    traced: TracedStep, outputs: Mapping[str, str], providers: Providers
) -> CachedGraph | None:
    """The step's graphs, optimized and in order, from the cache if they have been made before; None
    where they cannot be had."""
    cache = graph_cache()
    if cache is None:
        return _optimized(traced, outputs, providers)
    parts = {
        "graph": fingerprint(traced.raw),
        "passes": str([graph_pass.key for graph_pass in traced.passes(_target(providers))]),
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
    model, split = model_to_run(traced, providers, may_split=True)
    optimized = _optimized_model(ir.to_proto(model).SerializeToString(), providers)
    if optimized is None:
        return None
    late = recomputed_values(model)
    brief = estimated_seconds(model.graph) < _BRIEF_SECONDS
    if packs_updates(traced, providers):
        _tidy(optimized, late)
        packed = schedule_packed(
            optimized, outputs, late, thread_count(), _has_row_kernels(), single=brief
        )
    else:
        packed = Packed(schedule_updates(optimized, outputs, late), [], [])
    graphs = [optimized, *packed.shares]
    if split is not None:
        part = _optimized_model(ir.to_proto(split.part).SerializeToString(), providers)
        assert part is not None  # as the CPU has handed back the rest
        _tidy(part, late)
        schedule_updates(part, {}, late)
        graphs.append(part)
    models = [ir.to_proto(each).SerializeToString() for each in graphs]
    run = [model] if split is None else [model, split.part]
    small = all(estimated_peak(each.graph) < _SMALL_BYTES * len(each.graph) for each in run)
    notes = {
        "in_place": sorted(packed.in_place),
        "blocks": [asdict(block) for block in packed.blocks],
        "lengths": [len(model) for model in models],
        "samples": None if split is None else split.samples,
        "brief": brief,
        "small": small and not _is_frugal(traced),
    }
    return CachedGraph(b"".join(models), notes)


def _tidy(optimized: ir.Model, late: Collection[str]) -> None:
    """Mend what ONNX Runtime's rewrites leave, and do what these would not understand."""
    run_passes(optimized, [MergeViews(late), SquareTurned(), RemoveDeadCode(), MakeEarly(late)])
    if selections(optimized.graph) and has_bit_cast():
        run_passes(optimized, [SelectByBits()])


def packs_updates(traced: TracedStep, providers: Providers) -> bool:
    """Whether the step is made for the CPU's kernels, unless all passes are left out."""
    return traced.optimizes and _target(providers).is_cpu


def _target(providers: Providers) -> Target:
    return Target(primary_provider(providers))


def _has_row_kernels() -> bool:
    """Whether ONNX Runtime has the kernels here that `compiler.passes.stacking` is about."""
    return platform.machine().lower() in ("x86_64", "amd64")


def _convolves(traced: TracedStep) -> bool:
    return any(applies(node, "Conv", "ConvTranspose") for node in traced.raw.graph)


def _is_frugal(traced: TracedStep) -> bool:
    """Whether memory counts more than time."""
    return any(isinstance(graph_pass, Rematerialize) for graph_pass in traced.further)


def _kernel_passes(block: int, threads: int) -> list[GraphPass]:
    """What prepares convolutions, products, sums of rows and signs for the kernels of the CPU."""
    blocked = [BlockedConvolutions(block, threads), RemoveDeadCode()] if block else []
    products = [TransposedOperands(), WideOperandsFirst(), ScaledLayers()]
    return [*blocked, *products, GatherRepeatedRows(), AddToRows(), SignsByClip()]


def model_to_run(
    traced: TracedStep, providers: Providers, *, may_split: bool = False
) -> tuple[ir.Model, Split | None]:
    """The step's graph for its provider, which for the CPU has what only ONNX Runtime's own kernels
    know; not to be exported. Where it is split, into parts of the batch that run at the same time:
    the rest of it, and the split."""
    if not packs_updates(traced, providers):
        return traced.rewritten(_target(providers)), None
    threads = thread_count()
    # Finding the size of blocks opens a session: only where it matters.
    block = block_size() if _convolves(traced) else 0
    model = traced.rewritten(CPU, [MarkKernelGradients(block)] if block else [])
    split = None
    if may_split and threads > 1 and not _is_frugal(traced):
        split = split_batch(model, [s.name for s in traced.inputs], threads)
    # A kernel's gradient takes images in blocks, too.
    if split is None or split.samples < block:
        pieces, split = [(model, threads)], None
    else:
        pieces = [(split.rest, threads), (split.part, 1)]
    for piece, own in pieces:
        passes = _kernel_passes(block, own)
        run_passes(piece, passes, verify=tracing.verify_passes, domains=MarkKernelGradients.domains)
    return pieces[0][0], split


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
