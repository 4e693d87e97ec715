"""Estimates of what running a graph takes: operations and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Shapes = dict[str, tuple[int, ...]]


@dataclass(slots=True)
class Estimate:
    """What one run takes.

    Attributes:
        flops: floating-point operations of MatMul, Gemm, Conv and ConvTranspose, a multiplication
            and an addition counted as two.
        moved_bytes: what must be read and written at least once, however the rest is fused and
            cached: inputs, constants, results, and what the backward pass needs of the forward
            pass, written and read again. Of an input that is only indexed, and of a result that is
            another tensor with rows replaced, the rows count.
        peak_bytes: of the values between nodes that are needed at the same time, if each has memory
            of its own.
        unknown: nodes of these types whose shapes are not known.
        bodies: nodes with graphs inside, which are not counted.
    """

    flops: int = 0
    moved_bytes: int = 0
    peak_bytes: int = 0
    unknown: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)


def open_dimensions(graph: onnx.GraphProto) -> dict[str, bool]:
    """The open dimensions of the inputs, and whether each is a leading one: a batch.

    Those without a name get that of their input and the axis.
    """
    found: dict[str, bool] = {}
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = dim.dim_param or f"{value.name}_{axis}"
                found[dim.dim_param] = found.get(dim.dim_param, False) or axis == 0
    return found


def estimate(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Estimate:
    """Estimate a run.

    Args:
        sizes: of the named dimensions.
    """
    import onnx

    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in [*sized.graph.input, *sized.graph.output, *sized.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
    shapes: Shapes = {t.name: tuple(t.dims) for t in inferred.initializer}
    item_sizes = {t.name: _item_size(t.data_type) for t in inferred.initializer}
    for value in [*inferred.input, *inferred.output, *inferred.value_info]:
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
            item_sizes[value.name] = _item_size(kind.elem_type)
    found = Estimate()
    for node in inferred.node:
        if any(a.HasField("g") for a in node.attribute):
            found.bodies.append(node.name or node.op_type)
        if node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
            flops = _flops(node, shapes)
            if flops is None:
                found.unknown.append(node.name or node.op_type)
            else:
                found.flops += flops
    sizes_of = {n: math.prod(shapes[n]) * item for n, item in item_sizes.items()}
    found.moved_bytes = _moved(inferred, sizes_of)
    found.peak_bytes = _peak(inferred, sizes_of)
    return found


def _item_size(elem_type: int) -> int:
    import onnx

    if elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)


def _flops(node: onnx.NodeProto, shapes: Shapes) -> int | None:
    a, b, out = (shapes.get(n) for n in (node.input[0], node.input[1], node.output[0]))
    if a is None or b is None or out is None:
        return None
    if node.op_type == "MatMul":
        return 2 * math.prod(out) * a[-1]
    if node.op_type == "Gemm":
        flipped = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return 2 * math.prod(out) * a[0 if flipped else 1]
    # The kernel's shape is (out, in per group, ...) for Conv, (in, out per group, ...) transposed.
    return 2 * math.prod(out if node.op_type == "Conv" else a) * math.prod(b[1:])


#: Operators that touch only some rows of their first input.
_INDEXING = frozenset(("Gather", "GatherND", "GatherElements"))
_SCATTERING = frozenset(("ScatterND", "ScatterElements"))


def _moved(graph: onnx.GraphProto, sizes: Mapping[str, int]) -> int:
    """The bytes that any way to run the graph must move; see `Estimate.moved_bytes`."""
    producers = {name: node for node in graph.node for name in node.output if name}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in {*node.input} - {""}:
            users.setdefault(name, []).append(node)

    def rows_read(name: str, node: onnx.NodeProto) -> int | None:
        if node.op_type in _SCATTERING and name == node.input[0]:
            return 0  # what is replaced counts where it is written
        indexed = node.op_type in _INDEXING and name == node.input[0]
        return sizes.get(node.output[0], 0) if indexed else None

    total = 0
    for name in {i.name for i in graph.input} | {t.name for t in graph.initializer}:
        rows = [rows_read(name, node) for node in users.get(name, ())]
        whole = sizes.get(name, 0) if rows else 0
        total += whole if None in rows else min(whole, sum(r for r in rows if r is not None))
    for output in graph.output:
        maker = producers.get(output.name)
        scatters = maker is not None and maker.op_type in _SCATTERING
        total += sizes.get(maker.input[2] if maker and scatters else output.name, 0)
    for name, maker in producers.items():
        saved = _phase(maker) == "forward" and maker.op_type not in _VIEWS
        pending, seen = [name] if saved else [], set[str]()
        while pending:  # through views
            readers = users.get(pending.pop(), [])
            if any(_phase(reader) == "backward" for reader in readers):
                total += 2 * sizes.get(name, 0)
                break
            views = {r.output[0] for r in readers if r.op_type in _VIEWS} - seen
            seen |= views
            pending += views
    return total


#: Operators whose result is their first input's memory.
_VIEWS = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"))


def _phase(node: onnx.NodeProto) -> str:
    return next((p.value for p in node.metadata_props if p.key == "onnxtape.phase"), "")


def _peak(graph: onnx.GraphProto, sizes: Mapping[str, int]) -> int:
    """The most bytes that the nodes' values take at once, in the order of the file."""
    outside = {t.name for t in graph.initializer} | {i.name for i in graph.input}
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    last.update((o.name, len(graph.node)) for o in graph.output)
    now = peak = 0
    for place, node in enumerate(graph.node):
        now += sum(sizes.get(name, 0) for name in node.output if name)
        peak = max(peak, now)
        over = [name for name in {*node.input, *node.output} if last.get(name, place) == place]
        now -= sum(sizes.get(name, 0) for name in over if name and name not in outside)
    return peak
