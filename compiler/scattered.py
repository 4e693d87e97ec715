"""Tensors that are zero but for some rows, recognized by how they were made."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxtape.compiler.dims import is_static
from onnxtape.compiler.inference import shape_of
from onnxtape.compiler.passes import applies


def scattered_rows(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """The row numbers and the rows whose sum, scattered into zeros, is `value`.

    Returns:
        Numbers of shape (..., 1) and rows of shape (..., *rest), for a value of shape (n, *rest):
        the gradient of a table of which rows were gathered. None if it was not made so.
    """
    node = value.producer()
    if node is None or not applies(node, "ScatterND"):
        return None
    zeros, places, rows = node.inputs
    if reduction_of(node) != "add":
        return None
    if zeros is None or places is None or rows is None or not is_filled_with_zeros(zeros):
        return None
    shape = shape_of(places)
    return (places, rows) if shape is not None and shape[-1] == 1 else None


def reduction_of(node: ir.Node) -> str:
    """What a ScatterND or ScatterElements does with what is there already."""
    return node.attributes["reduction"].as_string() if "reduction" in node.attributes else "none"


def is_filled_with_zeros(value: ir.Value) -> bool:
    """Whether a ConstantOfShape has made it, of zeros."""
    node = value.producer()
    if node is None or not applies(node, "ConstantOfShape"):
        return False
    filling = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else None
    return filling is None or not filling.any()


def is_sparse(value: ir.Value, places: ir.Value) -> bool:
    """Whether so few rows of a large value are named that the others are worth leaving out."""
    whole, named = shape_of(value), shape_of(places)
    if not is_static(whole) or math.prod(whole) < LARGE:
        return False
    return not is_static(named) or 3 * math.prod(named) <= whole[0]


#: Smaller tensors are passed over in no time.
LARGE = 1 << 20
