"""x[...] against NumPy: eagerly, compiled with a symbolic batch dimension, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from tests.frontend.op_cases.case import sample

X = sample((4, 3, 5, 2)).astype(np.float32)

ROWS = np.array([True, False, True, True])
PLANE = np.random.default_rng(0).random((4, 3)) < 0.5

KEYS: dict[str, Any] = {
    # Numbers
    "0": 0,
    "-1": -1,
    "1,2": (1, 2),
    "-4,-3,-5,-2": (-4, -3, -5, -2),
    "numpy number": np.int64(2),
    # Slices
    ":": slice(None),
    "1:": slice(1, None),
    ":-1": slice(None, -1),
    "-2:": slice(-2, None),
    "1:3": slice(1, 3),
    "3:1": slice(3, 1),
    "2:100": slice(2, 100),
    "-100:2": slice(-100, 2),
    "::2": slice(None, None, 2),
    "1::2": slice(1, None, 2),
    "::-1": slice(None, None, -1),
    "2::-1": slice(2, None, -1),
    ":0:-1": slice(None, 0, -1),
    "-1:0:-2": slice(-1, 0, -2),
    "3:-100:-1": slice(3, -100, -1),
    "1:2,::-1": (slice(1, 2), slice(None, None, -1)),
    ":,1,2:4": (slice(None), 1, slice(2, 4)),
    ":,-1,:,0": (slice(None), -1, slice(None), 0),
    # Ellipsis and new axes
    "...": Ellipsis,
    "...,0": (Ellipsis, 0),
    "0,...": (0, Ellipsis),
    "1,...,-1": (1, Ellipsis, -1),
    "...,1:,0": (Ellipsis, slice(1, None), 0),
    "None": None,
    "...,None": (Ellipsis, None),
    "None,0,None": (None, 0, None),
    ":,None,1,...,None,0": (slice(None), None, 1, Ellipsis, None, 0),
    "()": (),
    # Integer tensors
    "list": [0, 2, 0],
    "empty list": [],
    "tensor": np.array([1, -1, 1]),
    "tensor of rank 2": np.array([[0, 3], [2, -4]]),
    "tensor of rank 0": np.array(2),
    ":,tensor": (slice(None), np.array([2, 0])),
    "...,tensor": (Ellipsis, np.array([[1, 0, 1]])),
    "::2,tensor,None": (slice(None, None, 2), np.array([2, 0]), None),
    "1,tensor": (1, np.array([2, 0])),
    ":,1,tensor": (slice(None), 1, np.array([4, 0, 1])),
    ":,tensor,1": (slice(None), np.array([2, 0, 1]), 1),
    "0,:,tensor": (0, slice(None), np.array([4, 0])),
    "0,None,tensor": (0, None, np.array([2, 0])),
    ":,tensor,:,1": (slice(None), np.array([[2, 0]]), slice(None), 1),
    "None,0,:,tensor": (None, 0, slice(None), np.array([4, 0])),
    "0,:,tensor of rank 0": (0, slice(None), np.array(4)),
    "tensor,tensor": (np.array([0, 3, 1]), np.array([2, 0, -1])),
    "tensor,tensor broadcast": (np.array([[0], [3]]), np.array([2, 0, -1])),
    "tensor,tensor,1:": (np.array([0, 3]), np.array([2, 0]), slice(1, None)),
    "tensor,tensor,tensor": (np.array([0, 3]), np.array([2, 0]), np.array(1)),
    "tensor,tensor,None,::-1": (np.array([0]), np.array([2]), None, slice(None, None, -1)),
    # Masks
    "mask": ROWS,
    "mask of nothing": np.zeros(4, bool),
    ":,mask": (slice(None), np.array([True, False, True])),
    "mask,0": (ROWS, 0),
    "mask,:,0": (ROWS, slice(None), 0),
    "mask of rank 2": PLANE,
    "mask of rank 2,1:,0": (PLANE, slice(1, None), 0),
    "mask of rank 4": X > 0,
}

#: Those whose mask has the batch dimension, so that it must grow with it.
MASKED = ("mask", "mask of nothing", "mask,0", "mask,:,0", "mask of rank 2", "mask of rank 2,1:,0",
          "mask of rank 4")  # fmt: skip


def with_tensors(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(with_tensors, key))
    return ot.Tensor(key) if isinstance(key, np.ndarray) else key


def weighted(value: Any) -> Any:
    """A number whose gradient by every element is the element's own, plus 1."""
    return ops.sum(value * value * 0.5 + value)


def slopes(x: Any, key: Any) -> Any:
    expected = np.zeros_like(x)
    np.add.at(expected, key, x[key] + 1)
    return expected


def check(found: Any, x: Any, key: Any) -> None:
    value, gradient = found
    np.testing.assert_array_equal(value.numpy(), x[key])
    assert value.shape == x[key].shape
    np.testing.assert_allclose(gradient.numpy(), slopes(x, key), rtol=1e-6, atol=1e-6)


def indexed(x: Any, key: Any) -> Any:
    with ot.GradientTape() as tape:
        tape.watch(x)
        value = x[key]
        total = weighted(value)
    return value, tape.gradient(total, x)


@pytest.mark.parametrize("name", KEYS)
def test_eager_indexing_is_numpys(name: str) -> None:
    check(indexed(ot.Tensor(X), with_tensors(KEYS[name])), X, KEYS[name])


@pytest.mark.parametrize("name", [name for name in KEYS if name not in MASKED])
def test_compiled_indexing_is_numpys_for_every_batch_size(name: str) -> None:
    key = KEYS[name]
    signature = [ot.TensorSpec((None, 3, 5, 2))]

    @ot.function(input_signature=signature, fallback="error")
    def step(x: Any) -> Any:
        return indexed(x, with_tensors(key))

    check(step(X), X, key)
    longer = np.concatenate([X, X[::-1] * 0.5])
    check(step(longer), longer, key)
    assert step.trace_count == 1


@pytest.mark.parametrize("name", MASKED)
def test_compiled_masks_are_numpys_for_every_batch_size(name: str) -> None:
    key = KEYS[name]
    mask, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
    signature = [ot.TensorSpec((None, 3, 5, 2)), ot.TensorSpec((None, *mask.shape[1:]), "bool")]

    @ot.function(input_signature=signature, fallback="error")
    def step(x: Any, mask: Any) -> Any:
        return indexed(x, (mask, *rest))

    for size in (4, 3):
        check(step(X[:size], mask[:size]), X[:size], (mask[:size], *rest))


@pytest.mark.parametrize("compile_it", [False, True])
def test_slices_bounded_by_tensors(compile_it: bool) -> None:
    def cut(x: Any, start: Any, stop: Any) -> Any:
        return x[start:stop], x[1, start:], x[:, : x.shape[0] - stop : 2], x[-1:0:-1, :stop, None]

    step = ot.function(cut, fallback="error") if compile_it else cut
    for size, start, stop in ((4, 1, 3), (3, 0, 2), (4, -3, -1)):
        x = X[:size]
        given = (ot.Tensor(x), ot.Tensor(start), ot.Tensor(np.int64(stop)))
        for found, expected in zip(step(*given), cut(x, start, stop), strict=True):
            np.testing.assert_array_equal(found.numpy(), expected)


def test_every_dtype_is_indexed() -> None:
    for dtype in ("float16", "float64", "int8", "uint8", "int32", "int64", "bool"):
        x = (X * 10).astype(dtype)
        for key in ((1, slice(None, None, -2)), (Ellipsis, None, 0), np.array([1, 0]), ROWS):
            found = ot.Tensor(x)[with_tensors(key)].numpy()
            np.testing.assert_array_equal(found, x[key])
            assert found.dtype == dtype


def test_variables_and_symbolic_dimensions_index_and_are_indexed() -> None:
    v = ot.Variable(np.arange(6.0, dtype=np.float32))
    np.testing.assert_array_equal(v[1:4], [1, 2, 3])
    np.testing.assert_array_equal(v[ot.Variable([5, 0], trainable=False)], [5, 0])

    @ot.function(input_signature=[ot.TensorSpec((None,))], fallback="error")
    def first(x: Any) -> Any:
        return v[: x.shape[0]]

    np.testing.assert_array_equal(first(np.zeros(2, np.float32)), [0, 1])
    np.testing.assert_array_equal(first(np.zeros(4, np.float32)), [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (4, IndexError, r"index 4 is out of range for axis 0 of size 4"),
        ((0, -4), IndexError, r"index -4 is out of range for axis 1 of size 3"),
        ((0, 0, 0, 0, 0), IndexError, r"5 axes are indexed of a tensor of rank 4"),
        ((PLANE, 0, 0, 0), IndexError, r"5 axes are indexed of a tensor of rank 4"),
        ((Ellipsis, 0, Ellipsis), IndexError, r"an index can only have one ellipsis"),
        (slice(None, None, 0), ValueError, r"slice step cannot be zero"),
        (1.5, TypeError, r"cannot index a tensor with 1\.5"),
        ("a", TypeError, r"cannot index a tensor with 'a'"),
        ([0.5], TypeError, r"indexed with integers or booleans, not float32"),
        (True, TypeError, r"a single boolean is no index; write x\[None\]"),
        (np.array([True]), IndexError, r"mask of shape \(1,\) does not fit axis 0 of size 4"),
        ((slice(None), ROWS), IndexError, r"mask of shape \(4,\) does not fit axis 1 of size 3"),
        ((slice(None), [0], [1]), IndexError, r"index the first axes only; .* ops\.moveaxis"),
        (([0], slice(None), [1]), IndexError, r"index the first axes only"),
        ((ROWS, [0]), IndexError, r"index the first axes only"),
    ],
)
def test_what_is_no_index_is_refused(key: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ot.Tensor(X)[key]


def test_an_index_tensor_out_of_range_is_refused() -> None:
    with pytest.raises(ot.errors.InvalidArgumentError, match=r"test_ops_getitem\.py:\d+"):
        ot.Tensor(X)[ot.Tensor([7])]
