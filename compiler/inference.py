"""Shape inference: `onnx-shape-inference`, corrected where it takes more for granted than holds.

Gradient rules and passes rely on shapes: where two dimensions are called equal, nothing is summed
and a Reshape between them is dropped. So a symbol may stand for 1 wherever it broadcasts, a slice
may reach beyond the end, and what is computed at run time is unknown until then.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir
from onnx_shape_inference import SYM_DATA_KEY, ShapeInferenceContext, registry

from onnxtape.compiler.dims import Dim, Shape, broadcast_shapes, is_static, plain
from onnxtape.compiler.dims import shape_of as shape_of
from onnxtape.compiler.shape_corrections import CORRECTIONS

#: Operators that broadcast all their inputs as NumPy does, one output of the common shape.
BROADCASTING = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Mod",
        "Max",
        "Min",
        "Sum",
        "Mean",
        "Where",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "And",
        "Or",
        "Xor",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
    ]
)

#: Where operators take a shape, whose length is the result's rank, whatever it holds.
_SHAPED_BY = {"ConstantOfShape": 0, "Reshape": 1}


def infer(context: ShapeInferenceContext, node: ir.Node, opset: int) -> None:
    """Set the dtypes and shapes of the node's outputs as far as they can be told.

    Every dimension set is a number or a symbol: what is unknown gets a symbol of its own.

    Raises:
        ValueError: (or a subclass of it) the inputs do not fit together.
    """
    for value in node.inputs:
        shape = shape_of(value)
        if value is not None and shape is not None and None in shape:
            value.shape = _named(context, shape)
    library = registry.get("", node.op_type, version=opset)
    if library is not None:
        with _condition(node):
            library(context, node)
    _dtypes_by_schema(node, opset)
    for output in node.outputs:
        # The library's notes on what shape tensors hold; exported models need them not.
        output.metadata_props.pop(SYM_DATA_KEY, None)
    if node.op_type in BROADCASTING:
        _broadcast(context, node, [shape_of(x) for x in node.inputs if x is not None])
    elif node.op_type == "Expand":
        _broadcast(context, node, [shape_of(node.inputs[0]), _target(context, node.inputs[1])])
    elif node.op_type in CORRECTIONS:
        _correct(context, node)
    elif node.outputs[0].shape is None:
        if node.op_type in _SHAPED_BY:
            target = _target(context, node.inputs[_SHAPED_BY[node.op_type]])
            if target is not None:
                node.outputs[0].shape = _named(context, (None,) * len(target))
    elif node.op_type == "Slice":
        _slice(context, node)
    elif node.op_type == "Split":
        _split(context, node)
    elif node.op_type == "Squeeze":
        _squeeze(context, node)


@contextmanager
def _condition(node: ir.Node) -> Iterator[None]:
    """A Loop may have no condition; the library wants one."""
    omitted = node.op_type == "Loop" and node.inputs[1] is None
    if omitted:
        truth = ir.Value(name="true", shape=ir.Shape(()), type=ir.TensorType(ir.DataType.BOOL))
        node.replace_input_with(1, truth)
    try:
        yield
    finally:
        if omitted:
            node.replace_input_with(1, None)


def known_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape as far as it is known, if that is all of it."""
    shape = shape_of(value)
    return shape if is_static(shape) else None


def _named(context: ShapeInferenceContext, shape: Iterable[Dim]) -> ir.Shape:
    """`shape` with a new symbol for each dimension of which nothing is known.

    It is some number at run time, the same wherever the value is used; and the library takes no
    nameless dimensions.
    """
    return ir.Shape([context.new_symbolic_dim() if d is None else d for d in shape])


def _content(context: ShapeInferenceContext, value: ir.Value | None) -> Shape | None:
    """The dimensions that a shape tensor holds, as far as they can be told."""
    if value is None:
        return None
    constant = ir.convenience.get_const_tensor(value)
    if constant is not None:
        return tuple(int(d) for d in constant.numpy())
    symbolic = context.get_symbolic_value(value)
    return None if symbolic is None else plain(symbolic)


def _target(context: ShapeInferenceContext, value: ir.Value | None) -> Shape | None:
    """`_content`, or as many unknown dimensions as the shape tensor is long."""
    content, length = _content(context, value), shape_of(value)
    if content is None and length is not None and isinstance(length[0], int):
        return (None,) * length[0]
    return content


def _dtypes_by_schema(node: ir.Node, opset: int) -> None:
    """Dtypes that the library left open, where the operator's type constraints decide them."""
    if all(output.dtype is not None for output in node.outputs):
        return
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    bound = {
        formal.type_str: value.dtype
        for formal, value in zip(schema.inputs, node.inputs, strict=False)
        if value is not None
    }
    for formal, output in zip(schema.outputs, node.outputs, strict=False):
        dtype = bound.get(formal.type_str)
        if output.dtype is None and dtype is not None:
            output.type = ir.TensorType(dtype)


def _broadcast(
    context: ShapeInferenceContext, node: ir.Node, operands: Iterable[Shape | None]
) -> None:
    """Two different symbols broadcast to an unknown dimension: either may be 1."""
    shapes = list(operands)
    known = [s for s in shapes if s is not None]
    if len(known) == len(shapes):
        node.outputs[0].shape = _named(context, broadcast_shapes(*known))


def _correct(context: ShapeInferenceContext, node: ir.Node) -> None:
    corrected = CORRECTIONS[node.op_type](node, [shape_of(x) for x in node.inputs])
    for output, shape in zip(node.outputs, corrected or [], strict=False):
        output.shape = None if shape is None else _named(context, shape)


def _slice(context: ShapeInferenceContext, node: ir.Node) -> None:
    """A slice of a symbolic dimension ends where the dimension does."""
    whole, part = shape_of(node.inputs[0]) or (), shape_of(node.outputs[0]) or ()
    starts, ends, axes, steps = (
        _content(context, node.inputs[i] if i < len(node.inputs) else None) for i in range(1, 5)
    )
    if not _given(node, 3):
        count = (shape_of(node.inputs[1]) or (None,))[0]
        axes = tuple(range(count)) if isinstance(count, int) else None
    if not _given(node, 4):
        steps = None if axes is None else (1,) * len(axes)
    dims: list[Dim] = [None] * len(whole) if axes is None else list(whole)
    for i, axis in enumerate(axes or ()):
        if not isinstance(axis, int):
            dims = [None] * len(whole)
            break
        dim, kept = whole[axis], None
        if starts is not None and ends is not None and steps is not None:
            if all(isinstance(d, int) for d in (dim, starts[i], ends[i], steps[i])):
                kept = part[axis]
            elif steps[i] == 1:
                kept = _extent(dim, starts[i], ends[i])
        dims[axis] = kept
    node.outputs[0].shape = _named(context, dims)


def _extent(dim: Dim, start: Dim, end: Dim) -> Dim:
    """The length of `[start:end]` of a dimension."""
    if dim is None or start is None or end is None:
        return None

    def place(index: int | str) -> str:
        if isinstance(index, int) and index < 0:
            return f"Max(0, ({dim}) - {-index})"
        if isinstance(index, int) and index >= 2**31 - 1:
            return f"({dim})"
        return f"Min({index}, {dim})"

    length = f"Max(0, {place(end)} - {place(start)})" if start != 0 else place(end)
    return _simplified(length)


@functools.cache
def _simplified(expression: str) -> Dim:
    simple = ShapeInferenceContext().simplify_dim(ir.SymbolicDim(expression))
    return simple if isinstance(simple, int) else simple.value


def _split(context: ShapeInferenceContext, node: ir.Node) -> None:
    """Sizes that are symbols, or given at run time, need not be equal; the library halves."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is None or ir.convenience.get_const_tensor(given) is not None:
        return
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    sizes = _content(context, given) or (None,) * len(node.outputs)
    for output, size in zip(node.outputs, sizes, strict=True):
        dims = list(shape_of(output) or ())
        dims[axis] = size
        output.shape = _named(context, dims)


def _squeeze(context: ShapeInferenceContext, node: ir.Node) -> None:
    """Without axes, or with axes that are not known yet, run time decides which dimensions go."""
    whole = shape_of(node.inputs[0]) or ()
    if not _given(node, 1):
        if not is_static(whole):
            node.outputs[0].shape = None
    elif _content(context, node.inputs[1]) is None:
        count = (shape_of(node.inputs[1]) or (None,))[0]
        kept = len(whole) - count if isinstance(count, int) else None
        node.outputs[0].shape = None if kept is None else _named(context, [None] * kept)


def _given(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None
