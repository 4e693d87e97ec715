"""Gradients of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.dtypes import FLOAT32
from onnxtape.engine import B, convert_to_tensor
from onnxtape.tensor import Tensor


def squared_norm(tensor: Tensor) -> Tensor:
    """The sum of the squares of all elements, of dtype float32 at least."""
    wide = tensor if tensor.dtype.itemsize >= 4 else B.cast(tensor, FLOAT32)
    return B.op("ReduceSumSquare", wide, keepdims=0)


def global_norm(t_list: Sequence[Any]) -> Tensor:
    """The Euclidean norm of all elements of several tensors together; None counts as nothing.

    Raises:
        ValueError: there is no tensor.
    """
    squares = [squared_norm(convert_to_tensor(t)) for t in t_list if t is not None]
    if not squares:
        raise ValueError("the global norm of no tensors was asked for: all of them are None")
    dtype = np.result_type(*[s.dtype for s in squares])
    total = B.cast(squares[0], dtype)
    for square in squares[1:]:
        total = B.op("Add", total, B.cast(square, dtype))
    return B.op("Sqrt", total)


def clip_by_global_norm(
    t_list: Sequence[Any], clip_norm: Any, use_norm: Any = None
) -> tuple[list[Tensor | None], Tensor]:
    """Scale tensors together so that their global norm is at most `clip_norm` (as in TensorFlow).

    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks",
    2012. Where the norm is infinite or NaN, so is every element of the result.

    Args:
        t_list: tensors of any shapes; None stays None.
        clip_norm: a positive number or scalar tensor.
        use_norm: the global norm, if it is known already.

    Returns:
        The scaled tensors, and the global norm before scaling: a scalar of dtype float32, or
        float64 where a tensor has that.
    """
    norm = global_norm(t_list) if use_norm is None else convert_to_tensor(use_norm)
    limit = convert_to_tensor(clip_norm, norm.dtype)
    # A product with a minimum of reciprocals, as in TensorFlow and Keras: finite for a norm of 0.
    smaller = B.op("Min", B.op("Reciprocal", norm), B.op("Reciprocal", limit))
    scale = B.op("Add", B.op("Mul", limit, smaller), B.op("Sub", norm, norm))
    tensors = [None if t is None else convert_to_tensor(t) for t in t_list]
    clipped = [None if t is None else B.op("Mul", t, B.cast(scale, t.dtype)) for t in tensors]
    return clipped, norm


def clip_by_norm(tensor: Tensor, clip_norm: float) -> Tensor:
    """A tensor scaled so that its norm is at most `clip_norm`."""
    norm = B.op("Sqrt", squared_norm(tensor))
    scale = B.op("Div", B.scalar(clip_norm, norm.dtype), B.op("Max", norm, clip_norm))
    return B.op("Mul", tensor, B.cast(scale, tensor.dtype))


def clipped(
    gradients: list[Tensor],
    clipnorm: float | None,
    clipvalue: float | None,
    global_clipnorm: float | None,
) -> list[Tensor]:
    """Gradients clipped in the way that is given, if any."""
    if clipnorm is not None:
        return [clip_by_norm(g, clipnorm) for g in gradients]
    if clipvalue is not None:
        return [B.op("Clip", g, -float(clipvalue), float(clipvalue)) for g in gradients]
    if global_clipnorm is not None:
        scaled, _ = clip_by_global_norm(gradients, global_clipnorm)
        return [g for g in scaled if g is not None]
    return gradients
