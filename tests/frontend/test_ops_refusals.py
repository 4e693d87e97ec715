"""What the further operations refuse: arrangement, matrices, order, spectra, systems, images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import DtypeError, ShapeError

X = np.ones((2, 3), np.float32)

#: What is called on a (2, 3) tensor, and what its ShapeError says.
SHAPES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: ops.roll(x, (1, 2), 0), r"roll: 2 shifts do not go with 1 axes"),
    (lambda x: ops.array_split(x, 0), r"array_split takes a positive number of parts"),
    (lambda x: ops.slice(x, (0, 0), (1,)), r"slice takes 2 numbers as a shape, not \(1,\)"),
    (lambda x: ops.slice(x, (0,), (1, 1)), r"slice takes one start for each of 2 axes"),
    (
        lambda x: ops.slice_update(x, (0, 0), [1.0]),
        r"a block of \(1,\) does not go into .*\(2, 3\)",
    ),
    (lambda x: ops.extract_sequences(x, 0, 1), r"extract_sequences takes .* positive length"),
    (lambda x: ops.unravel_index([1], x), r"unravel_index takes a shape of numbers"),
    (lambda x: ops.tril(x[0]), r"tril takes matrices, not a tensor of \(3,\)"),
    (lambda x: ops.diagonal(x, 0, 1, -1), r"diagonal takes two different axes, not 1 and -1"),
    (lambda x: ops.diag(x[None]), r"diag takes a vector or a matrix, not \(1, 2, 3\)"),
    (lambda x: ops.vander(x), r"vander takes a vector"),
    (lambda x: ops.cross(x[..., None], x), r"cross takes vectors of 2 or 3 elements"),
    (lambda x: ops.searchsorted(x, 1.0), r"searchsorted takes a sorted vector, not .*\(2, 3\)"),
    (lambda x: ops.argpartition(x, 3), r"argpartition: axis 1 of size 3 has no index 3"),
    (lambda x: ops.bincount(x[None]), r"bincount takes rank 1 or 2, not a tensor of \(1, 2, 3\)"),
    (lambda x: ops.in_top_k([0], x[0], 1), r"in_top_k takes targets \(batch,\)"),
    (lambda x: ops.nonzero(x[0, 0]), r"nonzero takes a tensor of rank 1 or more"),
    (lambda x: ops.segment_sum(x, [0, 1, 2]), r"data \(2, 3\) takes a vector of .* not \(3,\)"),
    (lambda x: ops.corrcoef(x[None]), r"corrcoef takes a vector or a matrix"),
    (lambda x: ops.correlate(x, x[0]), r"correlate takes two vectors whose sizes are known"),
    (lambda x: ops.rearrange(x, "a b c -> a"), r"must name the same axes"),
    (lambda x: ops.rearrange(x, "(a b) -> a b", a=2), r"'.*' does not fit a tensor of \(2, 3\)"),
    (lambda x: ops.rearrange(x, "a (b c) -> a b c", b=2), r"axis of size 3 has no parts"),
    (lambda x: ops.depth_to_space(x, 2), r"depth_to_space takes a batch of images"),
    (lambda x: ops.depth_to_space(x[None, None], 2), r"3 channels are no multiple of 2 \* 2"),
    (lambda x: ops.space_to_depth(x[None, None], 2), r"images of 2 by 3|1 by 2 have no blocks"),
    (lambda x: ops.fold(x, 4, 2), r"fold takes a tensor of rank 3, not \(2, 3\)"),
    (lambda x: ops.psnr(x, x[0], 1.0), r"psnr takes tensors of one shape, not \(2, 3\) and \(3,\)"),
    (lambda x: ops.fft((x, x[0])), r"fft takes two tensors of one shape with 1 axes"),
    (lambda x: ops.fft2((x[0], x[0])), r"fft2 takes two tensors of one shape with 2 axes"),
    (lambda x: ops.stft(x, 2, 1, 2, window=[1.0]), r"a window has the shape \(2,\), not \(1,\)"),
    (lambda x: ops.det(x), r"det takes square matrices of known size, not \(2, 3\)"),
    (lambda x: ops.solve(x[:, :2], x[:1]), r"has 2 rows, and the right-hand side \(1, 3\)"),
    (lambda x: ops.adaptive_max_pool(x, 1), r"adaptive_max_pool takes a batch with one to three"),
    (lambda x: ops.image.rgb_to_hsv(x), r"rgb_to_hsv takes an image \(rank 3\) or a batch"),
    (lambda x: ops.image.hsv_to_rgb(x[..., None]), r"hsv_to_rgb takes 3 channels"),
    (lambda x: ops.sparsemax(x, 2), r"sparsemax: axis 2 is out of range"),
    (lambda x: ops.glu(x), r"split: axis 1 of size 3 has no 2 equal parts"),
]

VALUES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: ops.meshgrid(x, indexing="yx"), r"indexing is 'xy' or 'ij', not 'yx'"),
    (lambda x: ops.select([x], []), r"one choice per condition, not 0 for 1"),
    (lambda x: ops.searchsorted(x[0], x, "middle"), r"side is 'left' or 'right', not 'middle'"),
    (lambda x: ops.bincount(x, sparse=True), r"there are no sparse tensors"),
    (lambda x: ops.histogram(x, 0), r"positive number of bins, not 0"),
    (lambda x: ops.histogram(x, 2, (1.0, 0.0)), r"range \(1.0, 0.0\) has its ends the wrong way"),
    (
        lambda x: ops.quantile(x, 0.5, method="best"),
        r"quantile: method is one of 'linear', .*'best'",
    ),
    (lambda x: ops.diff(x, -1), r"diff: n is 0 or more, not -1"),
    (lambda x: ops.correlate(x[0], x[0], "all"), r"mode is 'valid', 'same' or 'full', not 'all'"),
    (lambda x: ops.linspace(0, 1, -1), r"linspace: num is 0 or more, not -1"),
    (lambda x: ops.rearrange(x, "a b"), r"has not the form 'axes -> axes'"),
    (lambda x: ops.rearrange(x, "(a b -> a b"), r"a parenthesis in .* is not closed"),
    (lambda x: ops.rearrange(x, "a ? -> a"), r"cannot be read at ' \?"),
    (lambda x: ops.rearrange(x, "a (b c) -> a b c"), r"give the sizes of c in"),
    (lambda x: ops.rearrange(x, "a b -> b a", c=1), r"names no axis 'c'"),
    (lambda x: ops.fft(x), r"fft takes a pair \(real part, imaginary part\)"),
    (lambda x: ops.stft(x, 4, 1, 2), r"0 < sequence_length <= fft_length"),
    (lambda x: ops.stft(x, 2, 1, 2, "flat"), r"window is 'hann', 'hamming', .* not 'flat'"),
    (lambda x: ops.depth_to_space(x, 2, "last"), r"data_format is 'channels_last' or"),
    (lambda x: ops.adaptive_max_pool(x[None], 0), r"output sizes are positive, not \(0,\)"),
    (
        lambda x: ops.image.crop_images(x[None], top_cropping=1),
        r"crop_images takes exactly two of both borders and the target",
    ),
    (
        lambda x: ops.image.pad_images(x[None], 1, 1, target_height=1, target_width=9),
        r"pad_images: no border may be negative, but they are 1 and -2|1 and -1",
    ),
]


@pytest.mark.parametrize(("call", "message"), SHAPES)
def test_shapes(call: Any, message: str) -> None:
    with pytest.raises((ShapeError, ValueError), match=message):
        call(ot.Tensor(X))


@pytest.mark.parametrize(("call", "message"), VALUES)
def test_values(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(ot.Tensor(X))


def test_dtypes() -> None:
    with pytest.raises(TypeError, match="gcd takes integers, not float32"):
        ops.gcd(X, X)
    with pytest.raises(TypeError, match="unravel_index takes integers, not float32"):
        ops.unravel_index(X, (2, 3))
    with pytest.raises(DtypeError, match=r"rgb_to_hsv takes floating-point images in .*not uint8"):
        ops.image.rgb_to_hsv(np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.array_split(x, 2), r"array_split takes .* 2 parts of axis 0 of \(.*, 3\)"),
        (lambda x: ops.inv(x), r"inv takes square matrices of known size"),
        (
            lambda x: ops.vander(x[:, 0]),
            r"vander takes a vector, and N where its size is not known",
        ),
        (lambda x: ops.adaptive_average_pool(x[None], 2), r"needs sizes that are known"),
        (lambda x: ops.associative_scan(ops.add, x), r"needs tensors of one size, which is known"),
        (lambda x: ops.correlate(x[:, 0], [1.0]), r"two vectors whose sizes are known"),
        (lambda x: ops.unfold(x[None, None], 2), r"unfold needs images of known size"),
    ],
)
def test_sizes_known_at_run_time_only(call: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        ot.function(call, fallback="error").get_concrete_function(ot.TensorSpec((None, 3)))
