"""Cases of `ops.convolution`; the oracle sums over the kernel's places in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, fixed, given, sample


def _each(value: Any, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else list(value)


def _windows(
    kernel: Any, counts: Any, strides: Any, dilations: Any
) -> Iterator[tuple[Any, tuple[slice, ...]]]:
    """Each place of the kernel, and which places of the padded image it meets."""
    for place in np.ndindex(*kernel):
        yield (
            place,
            tuple(
                slice(p * d, p * d + (n - 1) * s + 1, s)
                for p, n, s, d in zip(place, counts, strides, dilations, strict=True)
            ),
        )


def _conv(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    if data_format == "channels_first":
        y = _conv(np.moveaxis(x, 1, -1), kernel, strides, padding, None, dilation_rate)
        return np.moveaxis(y, -1, 1)
    rank, padding = x.ndim - 2, padding.lower()
    steps, dilations = _each(strides, rank), _each(dilation_rate, rank)
    widths, counts = [(0, 0)], []
    for n, k, s, d in zip(x.shape[1:-1], kernel.shape, steps, dilations, strict=False):
        reach = (k - 1) * d + 1
        counts.append(-(-n // s) if padding == "same" else (n - reach) // s + 1)
        total = max((counts[-1] - 1) * s + reach - n, 0) if padding == "same" else 0
        widths.append((total // 2, total - total // 2))
    padded = np.pad(x, [*widths, (0, 0)])
    group = x.shape[-1] // kernel.shape[-2]
    y = np.zeros((x.shape[0], *counts, kernel.shape[-1]))
    for place, seen in _windows(kernel.shape[:rank], counts, steps, dilations):
        parts = np.split(padded[(slice(None), *seen)], group, axis=-1)
        kernels = np.split(kernel[place], group, axis=-1)
        y += np.concatenate([a @ b for a, b in zip(parts, kernels, strict=True)], axis=-1)
    return y


def _depthwise(x: Any, kernel: Any, *args: Any, **kwargs: Any) -> Any:
    channels, multiplier = kernel.shape[-2:]
    flat = kernel.reshape(*kernel.shape[:-2], 1, channels * multiplier)
    return _conv(x, flat, *args, **kwargs)


def _separable(x: Any, depthwise: Any, pointwise: Any, **kwargs: Any) -> Any:
    layout = {"data_format": kwargs["data_format"]} if "data_format" in kwargs else {}
    return _conv(_depthwise(x, depthwise, **kwargs), pointwise, **layout)


def _conv_transpose(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    if data_format == "channels_first":
        y = _conv_transpose(
            np.moveaxis(x, 1, -1), kernel, strides, padding, output_padding, None, dilation_rate
        )
        return np.moveaxis(y, -1, 1)
    rank = x.ndim - 2
    steps, dilations = _each(strides, rank), _each(dilation_rate, rank)
    more = [None] * rank if output_padding is None else _each(output_padding, rank)
    whole, cuts = [], []
    for n, k, s, d, m in zip(
        x.shape[1:-1], kernel.shape[:rank], steps, dilations, more, strict=True
    ):
        reach = (k - 1) * d + 1
        full = (n - 1) * s + reach
        if padding == "same":
            size = n * s if m is None else (n - 1) * s + reach % 2 + m
        else:
            size = (n - 1) * s + max(reach, s) if m is None else full + m
        begin = max(full - size, 0) // 2
        whole.append(max(full, begin + size))
        cuts.append(slice(begin, begin + size))
    y = np.zeros((x.shape[0], *whole, kernel.shape[-2]))
    for place, seen in _windows(kernel.shape[:rank], x.shape[1:-1], steps, dilations):
        y[(slice(None), *seen)] += x @ kernel[place].T
    return y[(slice(None), *cuts)]


def tensors(*shapes: tuple[int, ...]) -> list[Any]:
    """The first is a batch, the others kernels."""
    first, *others = [sample(shape, -1, 1, seed=i) for i, shape in enumerate(shapes)]
    return [given(first, "float32"), *(fixed(other, "float32") for other in others)]


def convs() -> Iterator[Case]:
    small, square = tensors((2, 5, 2), (3, 2, 3)), tensors((2, 5, 4, 2), (3, 2, 2, 3))
    for options in (
        {},
        {"padding": "same"},
        {"strides": 2},
        {"strides": 2, "padding": "same"},
        {"dilation_rate": 2},
        {"dilation_rate": (2,), "padding": "same"},
        {"padding": "SAME", "data_format": "channels_last"},
    ):
        yield Case("conv", small, _conv, options, gradient=True, tolerance=1e-5)
    for options in ({"padding": "same"}, {"strides": (2, 1)}):
        yield Case("conv", square, _conv, options, gradient=True, tolerance=1e-5)
    first = tensors((2, 2, 5, 4), (3, 2, 2, 3))
    options = {"data_format": "channels_first", "padding": "same", "strides": (1, 2)}
    yield Case("conv", first, _conv, options, gradient=True, tolerance=1e-5)
    groups = tensors((2, 5, 4), (2, 2, 4))
    yield Case("conv", groups, _conv, {"padding": "same"}, gradient=True, tolerance=1e-5)
    volume = tensors((1, 3, 3, 2, 2), (2, 2, 1, 2, 1))
    yield Case("conv", volume, _conv, {"padding": "same"}, gradient=True, tolerance=1e-5)
    mixed = [given(sample((2, 4, 1)), "float32"), fixed([[[1]], [[2]]], "int32")]
    yield Case("conv", mixed, _conv, tolerance=1e-5)


def transposed() -> Iterator[Case]:
    small, square = tensors((2, 3, 2), (3, 4, 2)), tensors((1, 3, 2, 2), (2, 3, 1, 2))
    for options in (
        {},
        {"padding": "same"},
        {"strides": 2},
        {"strides": 2, "padding": "same"},
        {"strides": 4},
        {"strides": 4, "padding": "same"},
        {"strides": 2, "output_padding": 1},
        {"strides": 2, "padding": "same", "output_padding": 0},
        {"strides": 2, "padding": "same", "output_padding": (1,)},
        {"dilation_rate": 2, "padding": "same"},
    ):
        yield Case("conv_transpose", small, _conv_transpose, options, gradient=True, tolerance=1e-5)
    options = {"strides": (2, 1), "padding": "same"}
    yield Case("conv_transpose", square, _conv_transpose, options, gradient=True, tolerance=1e-5)
    first = tensors((1, 2, 3, 2), (2, 3, 1, 2))
    options = {"strides": 2, "data_format": "channels_first"}
    yield Case("conv_transpose", first, _conv_transpose, options, gradient=True, tolerance=1e-5)


def depthwise() -> Iterator[Case]:
    for args in (tensors((2, 5, 3), (3, 3, 1)), tensors((2, 4, 3, 2), (2, 2, 2, 3))):
        for options in ({}, {"padding": "same"}, {"strides": 2, "padding": "same"}):
            yield Case("depthwise_conv", args, _depthwise, options, gradient=True, tolerance=1e-5)
    first = tensors((2, 2, 5), (3, 2, 2))
    options = {"data_format": "channels_first"}
    yield Case("depthwise_conv", first, _depthwise, options, gradient=True, tolerance=1e-5)
    args = tensors((2, 4, 3, 2), (2, 2, 2, 2), (1, 1, 4, 3))
    for options in ({}, {"padding": "same", "strides": 2}, {"dilation_rate": 2, "padding": "same"}):
        yield Case("separable_conv", args, _separable, options, gradient=True, tolerance=1e-5)
    first = tensors((2, 2, 5), (3, 2, 2), (1, 4, 1))
    yield Case("separable_conv", first, _separable, {"data_format": "channels_first"},
               gradient=True, tolerance=1e-5)  # fmt: skip


CASES = [*convs(), *transposed(), *depthwise()]
