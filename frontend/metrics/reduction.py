"""Sums and means of values, and of functions of targets and predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from onnxtape import ops
from onnxtape.compiler.dtypes import DType
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses.operands import divide_no_nan, may_broadcast, same_rank, weights_refused
from onnxtape.masks import mask_of
from onnxtape.metrics.metric import Metric
from onnxtape.naming import auto_name
from onnxtape.tensor import Tensor


class Sum(Metric):
    """The (weighted) sum of all values."""

    def __init__(self, name: str | None = "sum", dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable((), name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Take values into account.

        Args:
            values: of any shape; the first axis counts the samples.
            sample_weight: one per sample, or of a shape that broadcasts to that of the values.
        """
        x, _ = _samplewise(values, sample_weight, self.total.dtype, ops.sum)
        self.total.assign_add(ops.sum(x))

    def result(self) -> Tensor:
        """The sum; 0 before the first value."""
        return self.total.value


class Mean(Metric):
    """The (weighted) mean over all samples of the mean of each sample's values."""

    def __init__(self, name: str | None = "mean", dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable((), name="total")
        self.count = self.add_variable((), name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Take values into account.

        Args:
            values: of any shape; the first axis counts the samples.
            sample_weight: one per sample, or of a shape that broadcasts to that of the values.
        """
        x, weights = _samplewise(values, sample_weight, self.total.dtype, ops.mean)
        self.total.assign_add(ops.sum(x))
        if weights is not None:
            self.count.assign_add(ops.sum(weights))
        elif B.rank(x) == 0:
            self.count.assign_add(1.0)
        else:
            self.count.assign_add(ops.cast(ops.shape(x)[0], self.dtype))

    def result(self) -> Tensor:
        """The mean; 0 before the first value, as in Keras."""
        return divide_no_nan(self.total.value, self.count.value)


def _with_mask(sample_weight: Any, mask: Any) -> Any:
    """Weights that are zero where the mask is."""
    if mask is None:
        return sample_weight
    counted = ops.cast(mask, "float32")
    if sample_weight is None:
        return counted
    return ops.multiply(*same_rank(counted, convert_to_tensor(sample_weight, "float32")))


def _samplewise(
    values: Any, sample_weight: Any, dtype: DType, reduce: Callable[..., Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Values times weights, and weights, per sample; as Keras's reduce_to_samplewise_values."""
    total = convert_to_tensor(values, dtype)
    if sample_weight is None:  # A mask alone changes nothing, as in Keras.
        return _per_sample(total, reduce), None
    given = convert_to_tensor(_with_mask(sample_weight, mask_of(values)), dtype)
    x, weights = same_rank(total, given)
    rank, weighted = B.known_rank(x, "a metric"), B.known_rank(weights, "sample_weight")
    if rank > weighted:
        x = reduce(x, axis=list(range(weighted, rank)))
    if rank < weighted or not may_broadcast(x, weights):
        raise weights_refused(given, total)
    weights = B.expand_like(weights, x)
    return _per_sample(ops.multiply(x, weights), reduce), _per_sample(weights, reduce)


def _per_sample(x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """Reduced over all axes but the first."""
    rank = B.known_rank(x, "a metric")
    return reduce(x, axis=list(range(1, rank))) if rank > 1 else x


class MeanMetricWrapper(Mean):
    """The mean of a function of targets and predictions.

    Args:
        fn: takes targets and predictions and gives one value per sample.
        name: by default the function's, counted.
        kwargs: further arguments of the function.
    """

    _keeps_arguments = True

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        dtype: npt.DTypeLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name or auto_name(getattr(fn, "__name__", "metric")), dtype)
        self.fn = fn
        self._fn_kwargs = kwargs
        if self._direction is None and _is_loss(fn):
            self._direction = "down"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take a batch into account, but for what the mask of the predictions leaves out."""
        values = self.fn(y_true, y_pred, **self._fn_kwargs)
        super().update_state(values, _with_mask(sample_weight, mask_of(y_pred)))

    def get_config(self) -> dict[str, Any]:
        """The arguments that `from_config` makes an equal object of."""
        return {**super().get_config(), **self._fn_kwargs}


def _is_loss(fn: Any) -> bool:
    """Whether this is one of onnxtape's losses, or its function."""
    return str(getattr(fn, "__module__", "")).startswith("onnxtape.losses")
