"""Targets, predictions and weights: of one dtype, of ranks that fit, of shapes that go together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from onnxtape import context, ops
from onnxtape.compiler.dims import broadcast_shapes, format_shape
from onnxtape.compiler.errors import located
from onnxtape.dtypes import FLOAT32, is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import InvalidArgumentError, ShapeError
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor

#: Keras's `backend.epsilon()`: what keeps divisions and logarithms finite.
EPSILON = 1e-7


def floats(x: Any) -> Tensor:
    """A floating-point tensor: integers and booleans in float32."""
    t = convert_to_tensor(x)
    return t if is_float(t.dtype) else B.cast(t, FLOAT32)


def same_rank(x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
    """Make up for an axis of size 1 at the end that only one of the two has.

    As in Keras: (batch,) gets the axis that (batch, 1) has; of more axes, the last is dropped.
    """
    rank_1, rank_2 = B.known_rank(x1, "a loss"), B.known_rank(x2, "a loss")
    if rank_2 == rank_1 + 1:
        x2, x1 = same_rank(x2, x1)
    elif rank_1 == rank_2 + 1 and B.dim(x1, -1) == 1:
        if rank_2 == 1:
            x2 = ops.expand_dims(x2, -1)
        else:
            x1 = ops.squeeze(x1, -1)
    return x1, x2


def paired(what: str, y_true: Any, y_pred: Any, dtype: Any = None) -> tuple[Tensor, Tensor]:
    """Targets and predictions as floats of the prediction's dtype, and of one rank.

    Args:
        what: wants them, for the message.
        dtype: another one to compute in.

    Raises:
        ShapeError: they do not broadcast.
    """
    target, pred = _meeting(y_true, y_pred, dtype)
    if not may_broadcast(target, pred):
        raise refused(
            f"{what}: targets of shape {format_shape(B.shape(target))} and predictions of shape "
            f"{format_shape(B.shape(pred))} do not broadcast"
        )
    return target, pred


def alike(what: str, y_true: Any, y_pred: Any, dtype: Any = None) -> tuple[Tensor, Tensor]:
    """Targets and predictions as `paired` makes them, and of one shape.

    Raises:
        ShapeError: their shapes differ.
    """
    target, pred = _meeting(y_true, y_pred, dtype)
    if not may_equal(B.shape(target), B.shape(pred)):
        raise refused(
            f"{what} takes targets and predictions of one shape, not "
            f"{format_shape(B.shape(target))} and {format_shape(B.shape(pred))}"
        )
    return target, pred


def _meeting(y_true: Any, y_pred: Any, dtype: Any) -> tuple[Tensor, Tensor]:
    pred = floats(y_pred) if dtype is None else convert_to_tensor(y_pred, dtype)
    return same_rank(convert_to_tensor(y_true, pred.dtype), pred)


def may_broadcast(x1: Tensor, x2: Tensor) -> bool:
    """Whether nothing that is known now keeps the shapes from broadcasting."""
    first, second = B.shape(x1), B.shape(x2)
    if first is None or second is None:
        return True
    try:
        broadcast_shapes(first, second)
    except ValueError:
        return False
    return True


def weights_refused(given: Tensor, values: Tensor) -> ShapeError:
    """The error of weights that do not fit."""
    return refused(
        f"sample_weight of shape {format_shape(B.shape(given))} does not fit values of shape "
        f"{format_shape(B.shape(values))}: give one weight per sample, or one per value"
    )


def aligned(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Values and weights of one rank; a weight per sample counts for all the sample's values.

    Raises:
        ShapeError: they do not broadcast.
    """
    x, w = same_rank(values, weights)
    missing = B.known_rank(x, "a loss") - B.known_rank(w, "sample_weight")
    for _ in range(missing if B.rank(w) else 0):
        w = ops.expand_dims(w, -1)
    if not may_broadcast(x, w):
        raise weights_refused(weights, values)
    return x, w


def labels_of(what: str, y_true: Any, pred: Tensor, axis: int) -> Tensor:
    """Integer targets (int64), one for each prediction: without the axis of classes.

    Args:
        axis: of the classes, counted from the front.

    Raises:
        ShapeError: there is not one target per prediction.
    """
    given = convert_to_tensor(y_true, np.dtype(np.int64))
    rank = B.known_rank(pred, what)
    labels = given
    if B.known_rank(labels, what) == rank:
        size = B.dim(labels, axis)
        if size == 1 or not isinstance(size, int):
            labels = B.op("Squeeze", labels, [axis])
    samples = tuple(d for a, d in enumerate(B.shape(pred) or ()) if a != axis)
    if not may_equal(B.shape(labels), samples):
        raise refused(
            f"{what} takes one integer target per prediction, not targets of shape "
            f"{format_shape(B.shape(given))} for predictions {format_shape(B.shape(pred))}"
        )
    return labels


def picked(what: str, values: Tensor, labels: Tensor, axis: int) -> Tensor:
    """The values of the classes that `labels` name.

    Args:
        values: with the axis of classes.
        labels: int64, without it.

    Raises:
        InvalidArgumentError: a label is no class. (A compiled step raises an ExecutionError.)
    """
    # ONNX counts negative indices from the end; here they are out of range, like too large ones.
    classes = B.cast(B.op("Squeeze", B.dim_tensor(values, axis)), labels.dtype)
    places = B.op("Where", B.op("Less", labels, 0), classes, labels)
    with classes_expected(what, values, axis):
        found = B.op("GatherElements", values, B.op("Unsqueeze", places, [axis]), axis=axis)
    return B.op("Squeeze", found, [axis])


@contextmanager
def classes_expected(what: str, pred: Tensor, axis: int) -> Iterator[None]:
    """Explain why labels are refused: now, or when the compiled step runs."""
    message = (
        f"{what}: Out of range: a target is none of the {B.dim(pred, axis)} classes (counted "
        f"from 0) of predictions {format_shape(B.shape(pred))}"
    )
    try:
        with context.out_of_range_means(message):
            yield
    except InvalidArgumentError:
        raise InvalidArgumentError(located(message, context.provenance())) from None


def divide_no_nan(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 where y is 0."""
    nothing = B.op("Equal", y, 0.0)
    return B.op("Where", nothing, 0.0, B.op("Div", x, B.op("Where", nothing, 1.0, y)))
