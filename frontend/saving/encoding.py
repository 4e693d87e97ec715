"""Configurations as JSON and back, with tuples, arrays and dicts of other keys as they were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxtape.saving.objects import serialize
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor

_TUPLE, _ARRAY, _PAIRS = "__tuple__", "__array__", "__pairs__"
_SPEC, _FLOAT = "__spec__", "__float__"


def encode(x: Any, where: str) -> Any:
    """A configuration of what JSON can hold.

    Args:
        where: what it is of, for the message.

    Raises:
        ValueError: it holds something that no file can hold, such as a lambda.
    """
    x = serialize(x)
    if x is None or isinstance(x, (bool, int, str)):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else {_FLOAT: repr(x)}
    if isinstance(x, TensorSpec):
        return {_SPEC: [encode(tuple(x.shape), where), x.dtype.name, x.name]}
    if isinstance(x, np.generic):
        return encode(x.item(), where)
    if isinstance(x, (np.ndarray, Tensor)):
        array = np.asarray(x)
        return {_ARRAY: [array.dtype.name, list(array.shape), array.ravel().tolist()]}
    if isinstance(x, list):
        return [encode(part, f"{where}[{i}]") for i, part in enumerate(x)]
    if isinstance(x, tuple):
        return {_TUPLE: [encode(part, f"{where}[{i}]") for i, part in enumerate(x)]}
    if isinstance(x, Mapping):
        if all(isinstance(key, str) and not key.startswith("__") for key in x):
            return {key: encode(value, f"{where}.{key}") for key, value in x.items()}
        return {_PAIRS: [[encode(k, where), encode(v, f"{where}.{k}")] for k, v in x.items()]}
    raise ValueError(_refusal(x, where))


def decode(x: Any) -> Any:
    """What `encode` was given; configurations stay configurations."""
    if isinstance(x, list):
        return [*map(decode, x)]
    if not isinstance(x, dict):
        return x
    if len(x) == 1:
        ((kind, value),) = x.items()
        if kind == _TUPLE:
            return tuple(map(decode, value))
        if kind == _PAIRS:
            return {decode(k): decode(v) for k, v in value}
        if kind == _SPEC:
            shape, dtype, name = value
            return TensorSpec(decode(shape), dtype, name)
        if kind == _ARRAY:
            dtype, shape, numbers = value
            return np.array(numbers, _dtype(dtype)).reshape(shape)
        if kind == _FLOAT:
            return float(value)
    return {key: decode(value) for key, value in x.items()}


def _dtype(name: str) -> Any:
    from onnxtape.runtime.dtypes import numpy_dtype

    return numpy_dtype(name)


def _refusal(x: Any, where: str) -> str:
    if getattr(x, "__name__", "") == "<lambda>":
        return (
            f"{where} is a lambda, which has no name to be found by: write it with def, and put "
            "@ot.saving.register_keras_serializable() above it"
        )
    return (
        f"{where} is {x!r}, which no file can hold: give its class, {type(x).__name__}, methods "
        "get_config and from_config, and put @ot.saving.register_keras_serializable() above it"
    )
