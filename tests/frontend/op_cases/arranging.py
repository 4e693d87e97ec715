"""Cases of `ops.arranging`, `ops.blocks` and `ops.patterns`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, few_compiled, fixed, given, integers, sample

X = given(sample((2, 3, 4)), "float32")
MATRIX = given(sample((3, 4)), "float32")


def joining() -> Iterator[Case]:
    x, y = given(sample((2, 3)), "float32"), given(sample((2, 3), seed=1), "float32")
    vectors = [fixed(sample((3,)), "float32"), fixed(sample((3,), seed=1), "float32")]
    scalars = [fixed(1.0, "float32"), fixed(2.0, "float32")]
    deep = [X, given(sample((2, 3, 4), seed=1), "float32")]
    for name, oracle in (("vstack", np.vstack), ("hstack", np.hstack), ("dstack", np.dstack)):
        for tensors in ([x, y], vectors, scalars, deep):
            yield Case(name, [tensors], oracle, gradient=tensors is not scalars)
        mixed = [given([1, 2], "int32"), given([1.5, 2.5], "float32")]
        yield Case(name, [mixed], oracle, dtype="float32")
    for axis in (None, 0, 1):
        yield Case("append", [x, y], np.append, {"axis": axis}, gradient=True)
    flat = [given([1, 2], "int32"), fixed([[1.5]], "float32")]
    yield Case("append", flat, np.append, dtype="float32")
    grid = [fixed(sample((3,)), "float32"), given(sample((2,)), "float32")]
    for indexing in ("xy", "ij"):
        yield Case(
            "meshgrid",
            grid,
            lambda *x, indexing: list(np.meshgrid(*x, indexing=indexing)),
            {"indexing": indexing},
            gradient=True,
        )
    whole = [given([1, 2, 3], "int32"), fixed([4, 5], "int32"), fixed([6], "int32")]
    yield Case("meshgrid", whole, lambda *x: list(np.meshgrid(*x)))
    yield Case("meshgrid", [given([1, 2], "int64")], lambda x: list(np.meshgrid(x)))


def cutting() -> Iterator[Case]:
    y = given(sample((2, 7)), "float32")
    for how in (3, 1, 9, [2, 3]):
        yield Case("array_split", [y, how], np.array_split, {"axis": 1}, gradient=how == 3)
    yield Case("array_split", [fixed(integers((5,)), "int32"), 2], np.array_split)
    even = fixed(sample((4, 4, 2)), "float32")
    for name, oracle in (("vsplit", np.vsplit), ("hsplit", np.hsplit), ("dsplit", np.dsplit)):
        yield Case(name, [even, 2], oracle, gradient=True)
        yield Case(name, [even, [1]], oracle)
    yield Case("hsplit", [fixed(integers((4,)), "int32"), 2], np.hsplit)
    for start, size in (((0, 1, 2), (2, 2, 1)), ((1, 0, 0), (1, 3, 4))):
        yield Case(
            "slice",
            [X, start, size],
            lambda x, start, size: x[
                tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
            ],
            gradient=True,
            note=f"{start}{size}",
        )
    yield Case("slice", [X, (0, 1, 2), (-1, 2, -1)], lambda x, *_: x[:, 1:, 2:], note="the rest")
    places = fixed([1, 0], "int32")
    yield Case("slice", [MATRIX, places, (1, 2)], lambda x, *_: x[1:2, :2], note="tensor")
    block = fixed(sample((2, 2), seed=1), "float32")

    def updated(x: Any, start: Any, block: Any) -> Any:
        result = np.array(x)
        a, b = np.asarray(start)
        result[a : a + 2, b : b + 2] = block
        return result

    yield Case("slice_update", [MATRIX, (1, 1), block], updated, gradient=True)
    yield Case("slice_update", [MATRIX, fixed([0, 2], "int64"), block], updated, note="tensor")
    small = [fixed(integers((3, 4)), "int32"), (0, 0), fixed([[7, 8], [9, 9]], "int32")]
    yield Case("slice_update", small, updated)
    scalars = [fixed(1.0, "float32"), (), fixed(2.0, "float32")]
    yield Case("slice_update", scalars, lambda x, start, block: block, note="scalar")

    def windows(x: Any, length: int, stride: int) -> Any:
        count = (x.shape[-1] - length) // stride + 1
        return np.stack([x[..., i * stride : i * stride + length] for i in range(count)], -2)

    yield Case("extract_sequences", [MATRIX, 2, 1], windows, gradient=True)
    yield Case("extract_sequences", [given(sample((7,)), "float32"), 3, 2], windows, gradient=True)


def turning() -> Iterator[Case]:
    for name, oracle in (("fliplr", np.fliplr), ("flipud", np.flipud)):
        yield Case(name, [MATRIX], oracle, gradient=True)
        yield Case(name, [given(integers((2, 3)), "int32")], oracle)
    for k in (0, 1, 2, 3, -1):
        yield Case("rot90", [X, k], np.rot90, gradient=True, note=str(k))
    yield Case("rot90", [X, 1, (2, 1)], np.rot90, note="axes")
    for shift, axis in ((1, None), (-1, 0), (5, 1), (2, -1), ((1, 2), (0, 1)), ((1, 1), (1, 1))):
        options = {"shift": shift, "axis": axis}
        yield Case("roll", [MATRIX], np.roll, options, gradient=True)
    yield Case("roll", [given(integers((3, 2)), "int64"), 1, 0], np.roll)
    yield Case("roll", [fixed(np.zeros((0, 2)), "float32"), 1, 0], np.roll)
    flat = given([0, 5, 23, -1], "int32")
    yield Case("unravel_index", [flat, (2, 3, 4)], lambda x, s: list(np.unravel_index(x % 24, s)))


def _unfold(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    n, _, h, w = x.shape
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (
        (v, v) if isinstance(v, int) else v for v in (kernel_size, dilation, padding, stride)
    )
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows = range(0, h + 2 * ph - dh * (kh - 1), sh)
    columns = range(0, w + 2 * pw - dw * (kw - 1), sw)
    blocks = [
        x[:, :, i : i + dh * (kh - 1) + 1 : dh, j : j + dw * (kw - 1) + 1 : dw]
        for i in rows
        for j in columns
    ]
    return np.stack([b.reshape(n, -1) for b in blocks], -1)


def _fold(x: Any, output_size: Any, kernel_size: Any, **options: Any) -> Any:
    """Where each block's elements came from, by unfolding the places themselves."""
    h, w = output_size
    n, depth, _ = x.shape
    places = _unfold(np.arange(1, h * w + 1).reshape(1, 1, h, w), kernel_size, **options)[0]
    channels = depth // places.shape[0]
    found = np.zeros((n, channels, h * w + 1))
    for i in range(n):
        for c in range(channels):
            part = x[i, c * places.shape[0] : (c + 1) * places.shape[0]]
            np.add.at(found[i, c], places, part)
    return found[..., 1:].reshape(n, channels, h, w)


def blocks() -> Iterator[Case]:
    images = given(sample((2, 3, 6, 5)), "float32")
    for options in (
        {"kernel_size": 2},
        {"kernel_size": (3, 2), "padding": (1, 0), "stride": (2, 1)},
        {"kernel_size": 2, "dilation": 2, "padding": 1, "stride": 2},
    ):
        yield Case("unfold", [images], _unfold, options, gradient=options["kernel_size"] == 2)
        columns = given(_unfold(images.array, **options), "float32")
        sizes = {"output_size": (6, 5), **options}
        yield Case("fold", [columns], _fold, sizes, gradient="dilation" in options)
    for name in ("depth_to_space", "space_to_depth"):
        for data_format in ("channels_last", "channels_first"):
            last = data_format == "channels_last"
            x = given(sample((1, 2, 4, 8) if last else (1, 8, 2, 4)), "float32")
            oracle = _depth_to_space if name == "depth_to_space" else _space_to_depth
            yield Case(name, [x, 2], oracle, {"data_format": data_format}, gradient=True)
        yield Case(name, [given(integers((1, 2, 2, 4)), "int32"), 2], oracle)
    pair = [given(sample((2, 3)), "float32"), given(sample((2, 3), seed=1), "float32")]

    def psnr(x: Any, y: Any, most: float) -> Any:
        return 20 * np.log10(most) - 10 * np.log10(np.mean((x - y) ** 2))

    yield Case("psnr", [*pair, 2.0], psnr, gradient=True)


def _depth_to_space(x: Any, size: int, data_format: str = "channels_last") -> Any:
    """Pixel by pixel."""
    if data_format == "channels_first":
        n, c, h, w = x.shape
        found = np.zeros((n, c // size**2, h * size, w * size))
        for i in range(size):
            for j in range(size):
                found[:, :, i::size, j::size] = x[:, i * size + j :: size**2]
        return found
    n, h, w, c = x.shape
    depth = c // size**2
    found = np.zeros((n, h * size, w * size, depth))
    for i in range(size):
        for j in range(size):
            start = (i * size + j) * depth
            found[:, i::size, j::size] = x[..., start : start + depth]
    return found


def _space_to_depth(x: Any, size: int, data_format: str = "channels_last") -> Any:
    offsets = [(i, j) for i in range(size) for j in range(size)]
    if data_format == "channels_first":
        n, c, h, w = x.shape
        found = np.stack([x[:, :, i::size, j::size] for i, j in offsets], 2)
        return found.reshape(n, c * size**2, h // size, w // size)
    return np.concatenate([x[:, i::size, j::size] for i, j in offsets], -1)


def patterns() -> Iterator[Case]:
    x = given(sample((2, 6, 4)), "float32")
    for pattern, sizes, oracle in (
        ("b h c -> b c h", {}, lambda x: x.transpose(0, 2, 1)),
        ("b (h w) c->b h w c", {"w": 3}, lambda x: x.reshape(-1, 2, 3, 4)),
        ("b (h w) c -> (b c) w h", {"h": 2}, None),
        ("b h c -> (b h c)", {}, np.ravel),
        ("b h (one c) -> b 1 h one c", {"one": 1}, lambda x: x[:, None, :, None]),
    ):
        if oracle is None:
            oracle = lambda x: x.reshape(-1, 2, 3, 4).transpose(0, 3, 2, 1).reshape(-1, 3, 2)  # noqa: E731
        yield Case(
            "rearrange",
            [x, pattern],
            lambda x, pattern, oracle=oracle, **sizes: oracle(x),
            sizes,
            gradient=True,
        )
    ones = given(integers((3, 1)), "int32")
    yield Case("rearrange", [ones, "a 1 -> a"], lambda x, pattern: x[:, 0])


CASES = few_compiled([*joining(), *cutting(), *turning(), *blocks(), *patterns()])
