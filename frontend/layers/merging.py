"""Layers that make one tensor of several."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import may_equal, normalized, refused
from onnxtape.tensor import Tensor


class _Merge(Layer):
    """Base of the elementwise ones. Shapes broadcast; axes that a tensor lacks come after the
    batch, as in Keras."""

    #: How many inputs there must be at least, and at most.
    least, most = 2, 1_000_000

    def call(self, inputs: Any) -> Tensor:
        if not isinstance(inputs, (list, tuple)):
            raise TypeError(f"{self.title} merges a list of tensors, not {type(inputs).__name__}")
        if not self.least <= len(inputs) <= self.most:
            wanted = self.least if self.least == self.most else f"at least {self.least}"
            raise ValueError(f"{self.title} needs {wanted} inputs, but got {len(inputs)}")
        return self.merge(_aligned([convert_to_tensor(x) for x in inputs], self.title))

    @property
    def title(self) -> str:
        return f"{type(self).__name__} '{self.name}'"

    def merge(self, tensors: list[Tensor]) -> Tensor:
        """Merge tensors of one rank; subclasses write this."""
        raise NotImplementedError(f"{type(self).__name__} has no merge method")


def _aligned(tensors: list[Tensor], title: str) -> list[Tensor]:
    ranks = [B.known_rank(t, title) for t in tensors]
    most = max(ranks)
    return [
        ops.expand_dims(t, tuple(range(1, 1 + most - rank))) if rank < most else t
        for t, rank in zip(tensors, ranks, strict=True)
    ]


class Add(_Merge):
    """The sum of all inputs."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return functools.reduce(ops.add, tensors)


class Subtract(_Merge):
    """The first input minus the second."""

    most = 2

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return ops.subtract(*tensors)


class Multiply(_Merge):
    """The product of all inputs."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return functools.reduce(ops.multiply, tensors)


class Average(_Merge):
    """The mean of all inputs."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return ops.divide(functools.reduce(ops.add, tensors), len(tensors))


class Maximum(_Merge):
    """The largest of all inputs, element by element."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return functools.reduce(ops.maximum, tensors)


class Minimum(_Merge):
    """The smallest of all inputs, element by element."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return functools.reduce(ops.minimum, tensors)


class Concatenate(_Merge):
    """All inputs one after the other.

    Args:
        axis: along which axis; the others must be equal.
    """

    least = 1

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def merge(self, tensors: list[Tensor]) -> Tensor:
        axis = normalized(self.axis, len(B.shape(tensors[0]) or ()), self.title)
        first = B.shape(tensors[0])
        for other in tensors[1:]:
            if not may_equal(first, B.shape(other), but=axis):
                raise refused(
                    f"{self.title} joins along axis {axis}, so the other axes must be equal, but "
                    f"the inputs have shapes "
                    f"{' and '.join(format_shape(B.shape(t)) for t in tensors)}"
                )
        return ops.concatenate(tensors, axis=axis)


class Dot(_Merge):
    """The products of two inputs' samples, summed over one axis of each.

    Args:
        axes: the axis of both, or one for each; not the batch axis.
        normalize: scale both to length 1 along that axis first (cosine proximity).

    Shapes: (batch, *a) and (batch, *b) to (batch, *a without its axis, *b without its); (batch, 1)
    where nothing is left.
    """

    most = 2

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = [axes, axes] if isinstance(axes, int) else list(axes)
        if len(self.axes) != 2 or 0 in self.axes:
            raise ValueError(
                f"Dot needs one axis, or one for each of two inputs, none of them 0, not {axes}"
            )
        self.normalize = normalize

    def call(self, inputs: Any) -> Tensor:
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(f"{self.title} needs a list of 2 inputs")
        tensors = [convert_to_tensor(x) for x in inputs]
        places = [
            normalized(axis, B.known_rank(x, self.title), self.title)
            for x, axis in zip(tensors, self.axes, strict=True)
        ]
        if 0 in places:
            raise refused(f"{self.title}: axis 0 counts the samples and cannot be summed over")
        if self.normalize:
            tensors = [
                ops.normalize(t, axis=p, order=2) for t, p in zip(tensors, places, strict=True)
            ]
        a, b = (ops.moveaxis(t, p, -1) for t, p in zip(tensors, places, strict=True))
        if not may_equal((B.dim(a, -1),), (B.dim(b, -1),)):
            raise refused(
                f"{self.title} sums axis {places[0]} of {format_shape(B.shape(tensors[0]))} with "
                f"axis {places[1]} of {format_shape(B.shape(tensors[1]))}, whose sizes differ"
            )
        batch, *of_a = ops.shape(a)[:-1]
        of_b = ops.shape(b)[1:-1]
        rows = ops.matmul(_as_matrices(a), ops.swapaxes(_as_matrices(b), 1, 2))
        return ops.reshape(rows, (batch, *(of_a + list(of_b) or [1])))


def _as_matrices(x: Tensor) -> Tensor:
    """(batch, ..., n) as (batch, m, n)."""
    batch, *_, last = ops.shape(x)
    return x if B.rank(x) == 3 else ops.reshape(x, (batch, -1, last))


def add(inputs: Any, **kwargs: Any) -> Any:
    """`Add` as a function."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Any, **kwargs: Any) -> Any:
    """`Subtract` as a function."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Any:
    """`Multiply` as a function."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Any, **kwargs: Any) -> Any:
    """`Average` as a function."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Any, **kwargs: Any) -> Any:
    """`Maximum` as a function."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Any, **kwargs: Any) -> Any:
    """`Minimum` as a function."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """`Concatenate` as a function."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Any, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any) -> Any:
    """`Dot` as a function."""
    return Dot(axes=axes, normalize=normalize, **kwargs)(inputs)
