"""What recurrent operators read: inputs as they are, or rows gathered from a table.

Where a table has few rows, as one of characters has, products with it are made once for each row
and gathered; backwards, what belongs to a row is added up before the products. With 2048 inputs
from a table of 96 rows, that is a twentieth of the multiplications.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import Dim
from onnxtape.compiler.distinct_rows import SERIAL
from onnxtape.compiler.gradients.recurrent_steps import (
    Dims,
    Series,
    dims_vector,
    row_blocks,
    size,
    summed_products,
)

B = Builder[Any]

#: Rows are turned and moved by whole blocks, which two threads share where these are large enough.
_BLOCK_OF_ROWS = 32


class Inputs(abc.ABC):
    """The inputs of all steps.

    Attributes:
        features: the axis of features in the blocks of steps that products over all steps take: 0
            for (features, steps * batch), 1 for (steps * batch, features).
    """

    dims: Dims
    features: int

    @abc.abstractmethod
    def products(self, b: B, rows: int, weights: Any, bias: Any) -> Series:
        """W x + bias of each step.

        Args:
            rows: gates * H.
            weights: (gates * H, features).
            bias: (gates * H,) or None.
        """

    @abc.abstractmethod
    def blocks(self, b: B, series: Series) -> list[Any]:
        """A series in blocks, with its rows along the axis `features`."""

    @abc.abstractmethod
    def outer(self, b: B, xs: Sequence[Any], ys: Sequence[Any]) -> Any:
        """The sum over all steps of products x y^T, of two series in such blocks."""

    # Of `pre`, gradients of pre-activations in such blocks:

    @abc.abstractmethod
    def weight_gradient(self, b: B, pre: Sequence[Any]) -> Any:
        """The gradient of the weights."""

    @abc.abstractmethod
    def bias_gradient(self, b: B, pre: Sequence[Any]) -> Any:
        """The sum over batch and steps, of the pre-activations that the inputs enter."""

    @abc.abstractmethod
    def gradient(self, b: B, pre: Sequence[Sequence[Any]], weights: Sequence[Any]) -> Any:
        """The gradient of the inputs, or of the table that they are from, over all directions."""

    def total(self, b: B, blocks: Sequence[Any]) -> Any:
        """The sum of a series over batch and steps."""
        sums = [b.op("ReduceSum", x, [1 - self.features], keepdims=0) for x in blocks]
        return sums[0] if len(sums) == 1 else b.op("Sum", *sums)


class Given(Inputs):
    """Inputs (length, batch, features)."""

    features = 0

    def __init__(self, b: B, x: Any, width: Any) -> None:
        self.x = x
        self.dims = Dims.of(b, x)
        rows = b.op("Reshape", x, dims_vector(b, -1, width))
        self._rows = row_blocks(b, rows, self.dims)

    def products(self, b: B, rows: int, weights: Any, bias: Any) -> Series:
        bias = None if bias is None else b.op("Unsqueeze", bias, [1])
        made = [b.op("Gemm", weights, part, bias, transB=1) for part in self._rows]
        return Series(rows, self.dims, blocks=made)

    def blocks(self, b: B, series: Series) -> list[Any]:
        return series.blocks(b)

    def outer(self, b: B, xs: Sequence[Any], ys: Sequence[Any]) -> Any:
        return summed_products(b, zip(xs, ys, strict=True), transB=1)

    def weight_gradient(self, b: B, pre: Sequence[Any]) -> Any:
        return summed_products(b, zip(pre, self._rows, strict=True))

    def bias_gradient(self, b: B, pre: Sequence[Any]) -> Any:
        return self.total(b, pre)

    def gradient(self, b: B, pre: Sequence[Sequence[Any]], weights: Sequence[Any]) -> Any:
        parts = [
            summed_products(b, zip(of_block, weights, strict=True), transA=1)
            for of_block in zip(*pre, strict=True)
        ]
        rows = parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=0)
        return b.op("Reshape", rows, b.shape_tensor(self.x))


class Gathered(Inputs):
    """Inputs that are rows of a table (n, features): those that `places`, (length, batch), says.

    Args:
        width: gates * H, None where it is not known.
    """

    features = 1

    def __init__(self, b: B, table: Any, places: Any, width: Dim) -> None:
        self.table = table
        self.dims = Dims.of(b, places, _steps(b.dim(places, 1), width))
        # ScatterND takes int64 only.
        flat = b.op("Reshape", b.cast(places, np.dtype(np.int64)), [-1, 1])
        self._places = row_blocks(b, flat, self.dims)
        self._sums: dict[int, Any] = {}

    def products(self, b: B, rows: int, weights: Any, bias: Any) -> Series:
        of_table = b.op("Gemm", self.table, weights, bias, transB=1)
        places = [b.op("Squeeze", part, [1]) for part in self._places]
        parts = [b.op("Gather", of_table, part, axis=0) for part in places]
        return Series.of_rows(b, rows, self.dims, parts)

    def blocks(self, b: B, series: Series) -> list[Any]:
        return series.as_rows(b)

    def outer(self, b: B, xs: Sequence[Any], ys: Sequence[Any]) -> Any:
        return summed_products(b, zip(xs, ys, strict=True), transA=1)

    def weight_gradient(self, b: B, pre: Sequence[Any]) -> Any:
        return b.op("Gemm", self._by_row(b, pre), self.table, transA=1)

    def bias_gradient(self, b: B, pre: Sequence[Any]) -> Any:
        return self.total(b, [self._by_row(b, pre)])

    def gradient(self, b: B, pre: Sequence[Sequence[Any]], weights: Sequence[Any]) -> Any:
        sums = [self._by_row(b, blocks) for blocks in pre]
        return summed_products(b, zip(sums, weights, strict=True))

    def _by_row(self, b: B, pre: Sequence[Any]) -> Any:
        """(n, gates * H): the sum of what belongs to each row of the table."""
        key = id(pre[0])
        if key not in self._sums:
            dtype = b.dtype(pre[0])
            # ONNX Runtime adds no numbers of 16 bits, and sums of many would lose digits.
            wide = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
            shape = dims_vector(b, size(b, self.table, 0), size(b, pre[0], 1))
            total = b.op("ConstantOfShape", shape, value=np.zeros(1, wide))
            for places, rows in zip(self._places, pre, strict=True):
                total = b.op("ScatterND", total, places, b.cast(rows, wide), reduction="add")
            self._sums[key] = b.cast(total, dtype)
        return self._sums[key]


def _steps(batch: Dim, width: Dim) -> int:
    """How many steps a block has: so that the sums of its rows are made by one thread."""
    if not isinstance(batch, int) or not isinstance(width, int):
        return _BLOCK_OF_ROWS
    steps = max(1, SERIAL // max(1, batch * width))
    # Powers of two leave fewer lengths with a shorter block at the end.
    return min(_BLOCK_OF_ROWS, 1 << (steps.bit_length() - 1))
