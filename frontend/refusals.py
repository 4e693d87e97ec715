"""What ONNX Runtime refuses, in the words of the tracer."""

from __future__ import annotations

from collections.abc import Sequence

from onnxtape import context
from onnxtape.compiler.dims import broadcast_shapes, format_shape
from onnxtape.compiler.errors import describe_operands, located
from onnxtape.errors import DtypeError, ExecutionError, InvalidArgumentError, ShapeError
from onnxtape.tensor import Tensor

_SHAPE_CHECKING = frozenset(
    [
        "MatMul",
        "Gemm",
        "Reshape",
        "Concat",
        "Expand",
        "Conv",
        "ConvTranspose",
        "Squeeze",
        "Split",
        "Slice",
    ]
)


def explained(op_type: str, inputs: Sequence[Tensor | None], error: ExecutionError) -> Exception:
    """ONNX Runtime's refusal in the words that the tracer would use."""
    from onnxtape.compiler.graph_builder import BROADCASTING

    present = [x for x in inputs if x is not None]
    operands = describe_operands(
        ["(omitted)" if x is None else f"{x.dtype} {format_shape(x.shape)}" for x in inputs]
    )
    place = context.provenance()
    if "Type Error" in str(error) or "invalid type" in str(error).lower():
        names = " and ".join(sorted({x.dtype.name for x in present}))
        text = f"{op_type} does not take {names} here; convert with ops.cast"
        return DtypeError(located(text + operands, place))
    if op_type in BROADCASTING:
        try:
            broadcast_shapes(*[x.shape for x in present])
        except ValueError as reason:
            return ShapeError(located(f"{op_type}: {reason}{operands}", place))
    if op_type in _SHAPE_CHECKING:
        return ShapeError(located(f"{error}{operands}", place))
    return InvalidArgumentError(located(f"{error}{operands}", place))
