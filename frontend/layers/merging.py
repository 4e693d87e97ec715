"""Layers that make one tensor of several."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from onnxtape import ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.masks import attach, mask_of
from onnxtape.ops.axes import may_equal, normalized, refused
from onnxtape.tensor import Tensor


class _Merge(Layer):
    """Base of the elementwise ones. Shapes broadcast; axes that a tensor lacks come after the
    batch, as in Keras."""

    supports_masking = True

    #: How many inputs there must be at least, and at most.
    least, most = 2, 1_000_000

    def call(self, inputs: Any) -> Tensor:
        if not isinstance(inputs, (list, tuple)):
            raise TypeError(f"{self.title} merges a list of tensors, not {type(inputs).__name__}")
        if not self.least <= len(inputs) <= self.most:
            wanted = self.least if self.least == self.most else f"at least {self.least}"
            raise ValueError(f"{self.title} needs {wanted} inputs, but got {len(inputs)}")
        tensors = _aligned([convert_to_tensor(x) for x in inputs], self.title)
        for x, tensor in zip(inputs, tensors, strict=True):
            attach(tensor, mask_of(x))
        return self.merge(tensors)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Where any input counts, if all have masks; else none."""
        if mask is None or any(m is None for m in mask):
            return None
        return functools.reduce(ops.logical_or, mask)

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
    """The product of all inputs; what a mask leaves out is 1, or 0 where all leave it out."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        masks = [mask_of(t) for t in tensors]
        factors = [
            t if mask is None else ops.where(_column(mask), t, ops.ones_like(t))
            for t, mask in zip(tensors, masks, strict=True)
        ]
        product = functools.reduce(ops.multiply, factors)
        if any(mask is None for mask in masks):
            return product
        counted = _column(functools.reduce(ops.logical_or, masks))
        return ops.where(counted, product, ops.zeros_like(product))


def _column(mask: Any) -> Tensor:
    """A mask of steps, for all their features."""
    return ops.expand_dims(ops.cast(mask, "bool"), -1)


def _extreme(larger: Any, tensors: list[Tensor]) -> Tensor:
    """The extreme of what the masks leave; of nothing, the first."""
    best, counted = tensors[0], mask_of(tensors[0])
    for x in tensors[1:]:
        mask = mask_of(x)
        given = x if mask is None else ops.where(_column(mask), x, best)
        best = larger(best if counted is None else ops.where(_column(counted), best, given), given)
        counted = None if mask is None or counted is None else ops.logical_or(counted, mask)
    return best


class Average(_Merge):
    """The mean of all inputs."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return ops.divide(functools.reduce(ops.add, tensors), len(tensors))


class Maximum(_Merge):
    """The largest of all inputs, element by element."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return _extreme(ops.maximum, tensors)


class Minimum(_Merge):
    """The smallest of all inputs, element by element."""

    def merge(self, tensors: list[Tensor]) -> Tensor:
        return _extreme(ops.minimum, tensors)


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

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The masks one after the other; an input without one counts everywhere."""
        if mask is None:
            return None
        full = []
        for x, m in zip(inputs, mask, strict=True):
            tensor = convert_to_tensor(x)
            everywhere = ops.ones_like(tensor, dtype="bool")
            missing = 0 if m is None else (B.rank(tensor) or 0) - (B.rank(m) or 0)
            full.append(
                everywhere
                if m is None
                else ops.logical_and(ops.expand_dims(m, -1) if missing else m, everywhere)
            )
        return ops.any(ops.concatenate(full, axis=self.axis), axis=-1)


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

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: its axes are others than the inputs'."""


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


def dot(inputs: Any, axes: int | Sequence[int] = -1, normalize: bool = False, **kwargs: Any) -> Any:
    """`Dot` as a function."""
    return Dot(axes=axes, normalize=normalize, **kwargs)(inputs)
