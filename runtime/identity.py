"""A model of one Identity, written byte by byte: where only training happens, onnx may be missing.

It is what tells whether a provider starts, and what copies values to and from its device.
"""

from __future__ import annotations

_FLOAT = 1


def identity_model(element_type: int = _FLOAT) -> bytes:
    """A serialized model with input "x", output "y" and y = x, for tensors of any shape.

    Args:
        element_type: a number of `onnx.TensorProto.DataType`.
    """
    return (
        b"\x08\x0a"  # IR version 10
        + _field(8, b"\x10\x15")  # opset 21
        + _field(
            7,
            _field(1, _field(1, b"x") + _field(2, b"y") + _field(4, b"Identity"))
            + _field(2, b"identity")
            + _field(11, _value(b"x", element_type))
            + _field(12, _value(b"y", element_type)),
        )
    )


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _value(name: bytes, element_type: int) -> bytes:
    # A tensor type without a shape: the rank is free too.
    return _field(1, name) + _field(2, _field(1, bytes([1 << 3, element_type])))
