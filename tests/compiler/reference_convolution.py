"""The convolutions that ONNX's reference evaluator computes wrongly or slowly, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


def _offsets(
    kernel: Sequence[int], strides: Any, dilations: Any, counts: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each place of the kernel, and what it meets of a padded image."""
    for offset in np.ndindex(*kernel):
        yield (
            offset,
            tuple(
                slice(o * d, o * d + s * (n - 1) + 1, s)
                for o, s, d, n in zip(offset, strides, dilations, counts, strict=True)
            ),
        )


def _cut(whole: Any, before: Sequence[int], sizes: Sequence[int]) -> Any:
    """The image without its pads; zeros where it ends before."""
    image = np.zeros((*whole.shape[:2], *sizes), whole.dtype)
    places = tuple(slice(p, p + n) for p, n in zip(before, sizes, strict=True))
    part = whole[(..., *places)]
    image[(..., *(slice(n) for n in part.shape[2:]))] = part
    return image


class ConvTranspose(OpRun):
    """The original mixes up channels of groups, and ignores output_shape unless auto_pad is set."""

    def _run(
        self,
        x: Any,
        w: Any,
        bias: Any = None,
        auto_pad: Any = None,
        dilations: Any = None,
        group: Any = None,
        kernel_shape: Any = None,
        output_padding: Any = None,
        output_shape: Any = None,
        pads: Any = None,
        strides: Any = None,
    ) -> Any:
        rank, group = x.ndim - 2, group or 1
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        more, pads = output_padding or [0] * rank, pads or [0] * 2 * rank
        sizes, kernel = x.shape[2:], w.shape[2:]
        full = [
            s * (n - 1) + m + (k - 1) * d + 1
            for s, n, m, k, d in zip(strides, sizes, more, kernel, dilations, strict=True)
        ]
        before = pads[:rank]
        if output_shape is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output_shape = [n * s for n, s in zip(sizes, strides, strict=True)]
        if output_shape is None:
            output_shape = [f - a - z for f, a, z in zip(full, before, pads[rank:], strict=True)]
        else:
            total = [max(f - o, 0) for f, o in zip(full, output_shape, strict=True)]
            before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        batch, outs = x.shape[0], w.shape[1]
        whole = np.zeros((batch, group, outs, *full), x.dtype)
        ins = w.shape[0] // group
        maps = x.reshape(batch, group, ins, *sizes)
        kernels = w.reshape(group, ins, *w.shape[1:])
        for offset, places in _offsets(kernel, strides, dilations, sizes):
            whole[(..., *places)] += np.einsum("bgi...,gio->bgo...", maps, kernels[(..., *offset)])
        y = _cut(whole.reshape(batch, group * outs, *full), before, output_shape)
        return (y if bias is None else y + bias.reshape(-1, *[1] * rank),)


class Col2Im(OpRun):
    """The original takes seconds."""

    def _run(
        self,
        columns: Any,
        image_shape: Any,
        block_shape: Any,
        dilations: Any = None,
        pads: Any = None,
        strides: Any = None,
    ) -> Any:
        rank, kernel = len(image_shape), [int(k) for k in block_shape]
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        pads, sizes = pads or [0] * 2 * rank, [int(n) for n in image_shape]
        full = [n + a + z for n, a, z in zip(sizes, pads[:rank], pads[rank:], strict=True)]
        counts = [
            (f - (k - 1) * d - 1) // s + 1
            for f, k, d, s in zip(full, kernel, dilations, strides, strict=True)
        ]
        blocks = columns.reshape(columns.shape[0], -1, *kernel, *counts)
        whole = np.zeros((*blocks.shape[:2], *full), columns.dtype)
        for offset, places in _offsets(kernel, strides, dilations, counts):
            whole[(..., *places)] += blocks[(slice(None), slice(None), *offset)]
        return (_cut(whole, pads[:rank], sizes),)


class DeformConv(OpRun):
    """The original takes minutes and divides by zero for images of one row."""

    def _run(
        self,
        x: Any,
        w: Any,
        offset: Any,
        bias: Any = None,
        mask: Any = None,
        dilations: Any = None,
        group: Any = None,
        kernel_shape: Any = None,
        offset_group: Any = None,
        pads: Any = None,
        strides: Any = None,
    ) -> Any:
        group, parts = group or 1, offset_group or 1
        strides, dilations, pads = strides or [1, 1], dilations or [1, 1], pads or [0] * 4
        batch, channels, height, width = x.shape
        outs, ins, high, wide = w.shape
        rows, columns = offset.shape[2:]
        moves = offset.reshape(batch, parts, high, wide, 2, rows, columns)
        scale = np.ones((batch, parts, high, wide, rows, columns)) if mask is None else mask
        scale = scale.reshape(batch, parts, high, wide, rows, columns)
        y = np.zeros((batch, outs, rows, columns), x.dtype)
        for n, o, i, r, c in np.ndindex(batch, outs, ins, rows, columns):
            channel = o // (outs // group) * ins + i
            part = channel // (channels // parts)
            for p, q in np.ndindex(high, wide):
                place = moves[n, part, p, q, :, r, c]
                at = r * strides[0] - pads[0] + p * dilations[0] + place[0]
                across = c * strides[1] - pads[1] + q * dilations[1] + place[1]
                sample = 0.0
                for a, b in np.ndindex(2, 2):
                    i0, i1 = int(np.floor(at)) + a, int(np.floor(across)) + b
                    if 0 <= i0 < height and 0 <= i1 < width:
                        share = (1 - abs(at - i0)) * (1 - abs(across - i1))
                        sample += share * x[n, channel, i0, i1]
                y[n, o, r, c] += w[o, i, p, q] * sample * scale[n, part, p, q, r, c]
        return (y if bias is None else y + bias.reshape(-1, 1, 1),)


CORRECTED = [ConvTranspose, Col2Im, DeformConv]
