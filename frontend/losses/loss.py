"""The base of all losses: how targets come in, how weights and reductions go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxtape import context, nest, ops
from onnxtape.constructing import described
from onnxtape.engine import B, convert_to_tensor
from onnxtape.lookup import Configurable
from onnxtape.losses.operands import aligned, divide_no_nan
from onnxtape.masks import mask_of
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.tensor import Tensor

Reduction = Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"]


class Loss(Configurable):
    """A loss: subclasses write `call(y_true, y_pred)`, which gives one value per sample.

    Args:
        name: of operations and errors; by default the class's name in snake case, counted.
        reduction: "sum_over_batch_size" or "mean" (the sum divided by the number of values),
            "mean_with_sample_weight" (divided by the sum of the weights), "sum", or "none" (None).
        dtype: of the computation. By default float32 (also for predictions in 16 bits), or float64
            where predictions are.

    Raises:
        ValueError: another reduction.
    """

    # Whether targets are classes, which stay integers.
    _takes_classes = False

    def __init__(
        self,
        name: str | None = None,
        reduction: Reduction | None = "sum_over_batch_size",
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        if reduction is not None and reduction not in get_args(Reduction):
            allowed = ", ".join(map(repr, get_args(Reduction)))
            raise ValueError(f"reduction is one of {allowed}, not {reduction!r}")
        self.name = name or auto_name(to_snake_case(type(self).__name__))
        self.reduction = reduction
        self.dtype = None if dtype is None else np.dtype(dtype).name

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """The loss of each sample."""
        raise NotImplementedError(f"{type(self).__name__} has no call method")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """The reduced loss; steps that the mask of the predictions leaves out do not count.

        Args:
            y_true: targets; for a loss of one's own also a dict of them.
            y_pred: predictions, likewise.
            sample_weight: a number, one per sample, or of a shape that broadcasts to that of the
                losses of the samples.

        Raises:
            ShapeError: shapes that do not go together.
        """
        with context.in_layer(self.name):
            carried = mask_of(y_pred)
            predictions = _tensors(y_pred, None)
            dtype = self.dtype or _computed_in(predictions)
            predictions = _tensors(predictions, dtype)
            targets = _tensors(y_true, None if self._takes_classes else dtype)
            losses, mask = self._masked(targets, predictions)
            if carried is not None:
                mask = carried if mask is None else ops.logical_and(mask, carried)
            return self._reduced(convert_to_tensor(losses, dtype), sample_weight, mask)

    def _masked(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor | None]:
        """The loss of each sample, and (None: all) which of them count."""
        return self.call(y_true, y_pred), None

    def _reduced(self, losses: Tensor, sample_weight: Any, mask: Tensor | None) -> Tensor:
        weights = None
        if sample_weight is not None:
            weights = convert_to_tensor(sample_weight, losses.dtype)
        counted = None
        if mask is not None:
            counted = B.cast(mask, losses.dtype)
            losses, counted = aligned(losses, counted)
            weights = counted if weights is None else ops.multiply(*aligned(counted, weights))
        if weights is not None:
            losses, weights = aligned(losses, weights)
            losses = ops.multiply(losses, weights)
        if self.reduction in ("none", None) or B.rank(losses) == 0:
            return losses
        if self.reduction == "sum":
            return ops.sum(losses)
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            return divide_no_nan(ops.sum(losses), ops.sum(weights))
        if counted is not None:
            return divide_no_nan(ops.mean(losses), ops.mean(counted))
        return ops.mean(losses)

    def __repr__(self) -> str:
        known = {"name": self.name}
        return described(type(self).__name__, known | self._given_arguments() | known)


def _tensors(tree: Any, dtype: npt.DTypeLike | None) -> Any:
    """Tensors, in dicts as they are given; lists are arrays."""
    if isinstance(tree, Mapping):
        return {key: _tensors(part, dtype) for key, part in tree.items()}
    return convert_to_tensor(tree, dtype)


def _computed_in(predictions: Any) -> str:
    wide = any(t.dtype == np.float64 for t in nest.flatten(predictions))
    return "float64" if wide else "float32"
