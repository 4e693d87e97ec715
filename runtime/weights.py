"""Putting trained weights into a serialized ONNX model, without the onnx package.

A serialized protobuf message is a sequence of fields, each a key (number and wire type) and a
value, and a reader merges repeated occurrences. So a graph is edited by copying the fields that
stay, byte for byte, and appending new ones; nothing else of the format needs to be known.
https://protobuf.dev/programming-guides/encoding, and onnx.proto for the field numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from onnxtape.runtime.dtypes import DTYPES
from onnxtape.runtime.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A serialized message, to be written one piece after the other.
Pieces: TypeAlias = list[bytes | memoryview]

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_GRAPH_INPUT = 11
_GRAPH_OUTPUT = 12
_VALUE_INFO_NAME = 1
_TENSOR_DIMS = 1
_TENSOR_DATA_TYPE = 2
_TENSOR_NAME = 8
_TENSOR_RAW_DATA = 9

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}

#: No protobuf message can be longer, hence no ONNX model in one file.
LARGEST_MODEL = 2**31 - 1


class GraphNames(NamedTuple):
    """The names of a graph's inputs and outputs, in their order."""

    inputs: list[str]
    outputs: list[str]


def graph_names(model: bytes) -> GraphNames:
    """Read the input and output names of a serialized ONNX model.

    Raises:
        ArtifactError: `model` is not a serialized ONNX model.
    """
    names = GraphNames([], [])
    for part in _graph_fields(memoryview(model)):
        if part.number == _GRAPH_INPUT:
            names.inputs.append(_value_name(part.value))
        elif part.number == _GRAPH_OUTPUT:
            names.outputs.append(_value_name(part.value))
    return names


def with_weights(model: bytes, weights: Mapping[str, NDArray[Any]]) -> Pieces:
    """Turn inputs of a serialized ONNX model into initializers that hold their values.

    Args:
        model: the model; of IR version 4 or later, so that initializers need not be inputs.
        weights: for each of the inputs to turn, its value, with the dtype and shape of the input.

    Returns:
        The new model in pieces, to be written one after the other. The weights' own memory is
        among them, so that a large model is not copied.

    Raises:
        ArtifactError: `model` is not a serialized ONNX model, or the new one would be 2 GiB or
            larger, which no single ONNX file can be.
    """
    around: Pieces = [
        part.whole for part in _fields(memoryview(model)) if part.number != _MODEL_GRAPH
    ]
    graph: Pieces = [
        part.whole
        for part in _graph_fields(memoryview(model))
        if part.number != _GRAPH_INPUT or _value_name(part.value) not in weights
    ]
    for name, array in weights.items():
        tensor = _tensor(name, array)
        graph += [_key(_GRAPH_INITIALIZER, _BYTES), _varint(_length(tensor)), *tensor]
    result: Pieces = [*around, _key(_MODEL_GRAPH, _BYTES), _varint(_length(graph)), *graph]
    if (size := _length(result)) > LARGEST_MODEL:
        raise ArtifactError(
            f"The model with its weights would take {size / 2**30:.2f} GiB, and one ONNX file "
            "must stay below 2 GiB. Save the state instead, and give it to inference.onnx as "
            "inputs: its state inputs have the names of the state entries."
        )
    return result


class _Field(NamedTuple):
    number: int
    whole: memoryview  # key, length and value
    value: memoryview  # of a length-delimited field; else empty


def _fields(message: memoryview) -> Iterator[_Field]:
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        value = message[:0]
        if wire_type == _VARINT:
            _, position = _read_varint(message, position)
        elif wire_type == _BYTES:
            length, position = _read_varint(message, position)
            value = message[position : position + length]
            position += length
        elif wire_type in _FIXED_SIZES:
            position += _FIXED_SIZES[wire_type]
        else:
            raise _malformed(f"wire type {wire_type} at byte {start}")
        if position > len(message) or number == 0:
            raise _malformed(f"field {number} at byte {start} does not fit")
        yield _Field(number, message[start:position], value)


def _graph_fields(model: memoryview) -> Iterator[_Field]:
    """The fields of the model's graph, of all its occurrences together."""
    found = False
    for part in _fields(model):
        if part.number == _MODEL_GRAPH:
            found = True
            yield from _fields(part.value)
    if not found:
        raise _malformed("it has no graph")


def _value_name(value_info: memoryview) -> str:
    for part in _fields(value_info):
        if part.number == _VALUE_INFO_NAME:
            return bytes(part.value).decode("utf-8", errors="replace")
    return ""


def _tensor(name: str, array: NDArray[Any]) -> Pieces:
    """A TensorProto in pieces."""
    dtype = DTYPES[array.dtype.name]
    data = np.asarray(array, order="C")
    if data.dtype.byteorder == ">":
        data = data.astype(data.dtype.newbyteorder("<"))
    encoded = name.encode()
    raw = data.reshape(-1).view(np.uint8).data
    return [
        *(_key(_TENSOR_DIMS, _VARINT) + _varint(size) for size in array.shape),
        _key(_TENSOR_DATA_TYPE, _VARINT) + _varint(dtype.onnx),
        _key(_TENSOR_NAME, _BYTES) + _varint(len(encoded)) + encoded,
        _key(_TENSOR_RAW_DATA, _BYTES) + _varint(len(raw)),
        raw,
    ]


def _length(pieces: Pieces) -> int:
    return sum(len(piece) for piece in pieces)


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number that starts at `position`, and the position after it."""
    value = 0
    for index in range(10):
        if position + index >= len(message):
            break
        byte = message[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise _malformed(f"a number at byte {position} does not end")


def _malformed(reason: str) -> ArtifactError:
    return ArtifactError(f"This is not a serialized ONNX model: {reason}.")
