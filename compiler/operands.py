"""What operators take: the dtypes of their inputs, checked and described."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import onnx
import onnx_ir as ir

from onnxtape.compiler import dtypes
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.errors import (
    DtypeError,
    Provenance,
    ShapeError,
    describe_operands,
    located,
)
from onnxtape.compiler.inference import shape_of


def dtype_of(value: ir.Value) -> dtypes.DType:
    """The value's dtype.

    Raises:
        DtypeError: it is unknown.
    """
    if value.dtype is None:
        raise DtypeError(f"the dtype of '{value.name}' is unknown")
    return dtypes.from_onnx(value.dtype.value)


def described(inputs: Sequence[ir.Value | None]) -> list[str]:
    """Dtype and shape of each input, for messages."""
    return [
        "(omitted)"
        if v is None
        else f"{dtype_of(v) if v.dtype else '?'} {format_shape(shape_of(v))}"
        for v in inputs
    ]


def check_dtypes(
    op_type: str,
    opset: int,
    inputs: Sequence[ir.Value | None],
    provenance: Provenance | None,
) -> None:
    """Hold the inputs of an operator of the default domain to what its schema says of dtypes.

    Args:
        provenance: the user's place, which messages name.

    Raises:
        ShapeError: there are too many inputs.
        DtypeError: the operator does not take an input's dtype, or not beside another's.
        ValueError: the opset has no such operator.
    """
    schema = _schema(op_type, opset)

    def told(problem: str) -> str:
        return located(problem + describe_operands(described(inputs)), provenance)

    bound: dict[str, tuple[int, dtypes.DType]] = {}
    for i, value in enumerate(inputs):
        if value is None or not isinstance(value.type, ir.TensorType):
            continue
        formal = _formal_input(op_type, opset, i)
        if formal is None:
            raise ShapeError(told(f"{op_type} takes at most {len(schema.inputs)} inputs"))
        constraint, allowed = formal
        dtype = dtype_of(value)
        if dtypes.type_string(dtype) not in allowed:
            raise DtypeError(
                told(
                    f"{op_type} does not take {dtype} for input {i}; "
                    f"it takes {', '.join(sorted(allowed))}"
                )
            )
        first, expected = bound.setdefault(constraint, (i, dtype))
        if expected != dtype:
            raise DtypeError(
                told(
                    f"{op_type} needs inputs {first} and {i} to have one dtype, "
                    f"not {expected} and {dtype}; convert one of them with ops.cast"
                )
            )


@functools.cache
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        raise ValueError(f"opset {opset} has no operator {op_type}") from None


@functools.cache
def _formal_input(op_type: str, opset: int, index: int) -> tuple[str, frozenset[str]] | None:
    """The type constraint's name and the type strings of input `index`; None if there is none."""
    schema = _schema(op_type, opset)
    formal = schema.inputs[min(index, len(schema.inputs) - 1)] if schema.inputs else None
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    if formal is None or (index >= len(schema.inputs) and formal.option != variadic):
        return None
    independent = formal.option == variadic and not formal.is_homogeneous
    constraint = f"{formal.type_str}#{index}" if independent else formal.type_str
    return constraint, frozenset(formal.types)
