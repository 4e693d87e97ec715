"""Metrics: state that sums up batches, usable inside compiled steps."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from onnxtape import context, initializers, ops
from onnxtape.compiler.dims import format_shape, same_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.losses import same_rank
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Metric:
    """A metric: subclasses write `update_state` and `result` over variables from `add_variable`.

    Args:
        name: by default the class's name in snake case, counted.
    """

    def __init__(self, name: str | None = None, dtype: npt.DTypeLike = "float32") -> None:
        self.name = name or auto_name(to_snake_case(type(self).__name__))
        self.dtype = dtype
        self._variables: list[Variable] = []
        self._initializers: list[Any] = []

    def add_weight(
        self,
        shape: tuple[int, ...] = (),
        initializer: Any = "zeros",
        dtype: npt.DTypeLike | None = None,
        name: str | None = None,
    ) -> Variable:
        """`add_variable` under Keras's other name for it."""
        return self.add_variable(shape, initializer, dtype, name)

    def add_variable(
        self,
        shape: tuple[int, ...],
        initializer: Any = "zeros",
        dtype: npt.DTypeLike | None = None,
        name: str | None = None,
    ) -> Variable:
        """Create a state variable, which `reset_state` sets back to its initial value."""
        make = initializers.get(initializer)
        chosen = dtype or self.dtype
        variable = Variable(
            lambda: make(shape, dtype=chosen), False, name or "variable", chosen, role="metric"
        )
        variable.path = f"{self.name}/{variable.name}"
        self._variables.append(variable)
        self._initializers.append(make)
        return variable

    @property
    def variables(self) -> list[Variable]:
        """The metric's state."""
        return list(self._variables)

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take a batch into account."""
        raise NotImplementedError(f"{type(self).__name__} has no update_state method")

    def result(self) -> Tensor:
        """The metric over all batches since the last reset, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no result method")

    def reset_state(self) -> None:
        """Forget all batches."""
        for variable, make in zip(self._variables, self._initializers, strict=True):
            variable.assign(make(variable.shape, dtype=variable.dtype))

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """`update_state`, then `result`."""
        self.update_state(*args, **kwargs)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class Mean(Metric):
    """The (weighted) mean over all samples of the mean of each sample's values."""

    def __init__(self, name: str | None = "mean", dtype: npt.DTypeLike = "float32") -> None:
        super().__init__(name, dtype)
        self.total = self.add_variable((), name="total")
        self.count = self.add_variable((), name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Take values into account.

        Args:
            values: of any shape; the first axis counts the samples.
            sample_weight: one per sample, or of a shape that broadcasts to that of the values.
        """
        x = convert_to_tensor(values, self.total.dtype)
        weights = None
        if sample_weight is not None:
            x, weights = _weighted(x, convert_to_tensor(sample_weight, x.dtype))
        x = _per_sample(x)
        self.total.assign_add(ops.sum(x))
        if weights is not None:
            self.count.assign_add(ops.sum(weights))
        elif B.rank(x) == 0:
            self.count.assign_add(1.0)
        else:
            self.count.assign_add(ops.cast(ops.shape(x)[0], self.dtype))

    def result(self) -> Tensor:
        """The mean; 0 before the first value, as in Keras."""
        count = self.count.value
        return ops.divide(self.total, ops.where(ops.equal(count, 0.0), 1.0, count))


def _weighted(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Values times weights, and each sample's weight; as Keras's reduce_to_samplewise_values."""
    x, weights = same_rank(x, weights)
    rank, given = B.known_rank(x, "Mean"), B.known_rank(weights, "sample_weight")
    if rank > given:
        x = ops.mean(x, axis=list(range(given, rank)))
    weights = B.expand_like(weights, x)
    return ops.multiply(x, weights), _per_sample(weights)


def _per_sample(x: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    rank = B.known_rank(x, "Mean")
    return ops.mean(x, axis=list(range(1, rank))) if rank > 1 else x


class MeanMetricWrapper(Mean):
    """The mean of a function of targets and predictions."""

    def __init__(
        self,
        fn: Any,
        name: str | None = None,
        dtype: npt.DTypeLike = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(name or auto_name(getattr(fn, "__name__", "metric")), dtype)
        self._fn = fn
        self._fn_kwargs = kwargs

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take a batch of targets and predictions into account."""
        with context.in_layer(self.name):
            values = self._fn(y_true, y_pred, **self._fn_kwargs)
            super().update_state(values, sample_weight)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the most probable class is the target's.

    Shapes: targets (batch, ...) of integers, or (batch, ..., 1); predictions (batch, ..., classes).
    """

    def __init__(
        self, name: str | None = "sparse_categorical_accuracy", dtype: npt.DTypeLike = "float32"
    ) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where the most probable class is the target's, else 0.

    Raises:
        ShapeError: targets do not have one class per prediction.
    """
    pred, labels = convert_to_tensor(y_pred), convert_to_tensor(y_true)
    rank = B.known_rank(pred, "sparse_categorical_accuracy")
    if B.rank(labels) == rank and B.dim(labels, -1) == 1:
        labels = ops.squeeze(labels, -1)
    if not may_equal(B.shape(labels), (B.shape(pred) or ())[:-1]):
        raise refused(
            "sparse_categorical_accuracy takes one integer target per prediction, not targets of "
            f"shape {format_shape(B.shape(labels))} for predictions {format_shape(B.shape(pred))}"
        )
    best = B.op("ArgMax", pred, axis=-1, keepdims=0)
    if not same_shape(B.shape(labels), B.shape(best)):
        # Where sizes are known only at run time, one target must not be broadcast to all.
        labels = B.op("Reshape", labels, B.op("Shape", best), allowzero=1)
    return ops.cast(ops.equal(best, ops.cast(labels, "int64")), "float32")
