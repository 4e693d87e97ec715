"""Every kind of operation over dtypes and shapes, against Keras: values, dtypes and shapes."""

from __future__ import annotations

import ast
import functools
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.dtypes import is_float
from tests.reference import keras_dtypes

STORED = Path(keras_dtypes.__file__).with_name("keras_dtypes.npz")
#: Attributes of ONNX are float32, and so is Erf of its reference implementation.
TOLERANCES = {"bfloat16": 2e-2, "float16": 2e-3, "float32": 3e-6, "float64": 1e-7}

#: Where Keras makes a tensor of a Python number first, on TensorFlow: an int32 or float32 one,
#: which widens the result. Keras's own rule (its `compute_output_spec`) lets the number take the
#: tensor's dtype, as Keras on JAX does for most of these, and as is done here throughout.
NUMBERS_WITH_A_DTYPE = {
    **dict.fromkeys(["arctan2", "heaviside", "hypot", "logaddexp"], ("1.5",)),
    **dict.fromkeys(["bitwise_and", "bitwise_or", "bitwise_xor", "gcd"], ("2",)),
    **dict.fromkeys(["left_shift", "right_shift"], ("2",)),
    **dict.fromkeys(["fmod", "mod"], ("1.5", "2")),
}

CALLS: dict[str, list[Any]] = defaultdict(list)
for _operation, *_call in keras_dtypes.calls():
    CALLS[_operation].append(_call)


@functools.cache
def stored() -> dict[str, tuple[str, tuple[int, ...], Any]]:
    """Dtype, shape and values of Keras's results by the names of the calls."""
    with np.load(STORED) as file:
        shapes = [ast.literal_eval(shape) for shape in file["shapes"]]
        sizes = [int(np.prod(shape)) for shape in shapes]
        parts = np.split(file["values"], np.cumsum(sizes)[:-1])
        rows = zip(file["dtypes"], shapes, parts, strict=True)
        return {
            str(name): (str(dtype), shape, values.reshape(shape))
            for name, (dtype, shape, values) in zip(file["names"], rows, strict=True)
        }


def expected_dtype(name: str, arguments: tuple[Any, ...], keras: str) -> str:
    operation, *rest = name.split()
    if operation in ("heaviside", "hypot") and sorted(rest) == ["2", "uint32"]:
        # uint32 and an int32 meet in int64, for which Keras computes these in float64.
        return "float32"
    tensors = [x.dtype for x in arguments if hasattr(x, "dtype")]
    for number in NUMBERS_WITH_A_DTYPE.get(operation, ()):
        if number in rest and len(tensors) == 1:
            takes_it = is_float(tensors[0]) or (number == "2" and tensors[0].kind in "iu")
            return str(tensors[0]) if takes_it else keras
    return keras


def check(name: str, arguments: tuple[Any, ...], found: Any) -> None:
    dtype, shape, values = stored()[name]
    assert (name, found.dtype.name) == (name, expected_dtype(name, arguments, dtype))
    assert (name, found.shape) == (name, shape)
    tolerance = max(TOLERANCES.get(found.dtype.name, 0), TOLERANCES.get(dtype, 0))
    np.testing.assert_allclose(
        found.astype(np.float64), values, rtol=tolerance, atol=tolerance, err_msg=name
    )


@pytest.mark.parametrize("operation", CALLS)
def test_as_keras(operation: str) -> None:
    compared = 0
    for name, call, arguments in CALLS[operation]:
        if name in stored():
            with warnings.catch_warnings():
                # Some dtypes have no kernels and run through ONNX's reference implementation.
                warnings.filterwarnings("ignore", "ONNX Runtime has no kernel", RuntimeWarning)
                found = keras_dtypes.run(ot, call, arguments)
            check(name, arguments, found)
            compared += 1
    assert compared


def test_the_calls_stored_are_those_there_are() -> None:
    assert set(stored()) <= {name for calls in CALLS.values() for name, _, _ in calls}


def test_numpys_float64_numbers_are_python_numbers() -> None:
    """As in the operators of Keras's tensors on TensorFlow, PyTorch and JAX."""
    two = np.sqrt(4.0)
    assert isinstance(two, np.float64)
    for dtype in ("float16", "float32", "float64"):
        x = ot.ops.ones(3, dtype=dtype)
        for y in (x * two, two * x, x / two, x - two, ot.ops.where(x > two, x, two)):
            assert y.dtype == dtype
        compiled = ot.function(lambda x: ot.ops.maximum(x, two), fallback="error")(x)
        assert compiled.dtype == dtype
    assert (ot.ops.ones(3) * np.ones(3)).dtype == "float64"
