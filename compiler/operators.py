"""Properties of standard operators that several parts of the compiler ask for."""

from __future__ import annotations

import functools
from collections.abc import Iterable

#: Operators that give something else each time they run (Dropout when it trains).
RANDOM = (
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)


def lowest_opset(
    op_type: str, least: int, attributes: Iterable[str] = (), inputs: int = 0, outputs: int = 0
) -> int:
    """The lowest default-domain opset from `least` on in which the operator can be used so.

    Args:
        attributes: the names of those that are given.
        inputs, outputs: how many there are.

    Returns:
        `least` too where no opset has such an operator: what is wrong is then seen there.
    """
    return _lowest_opset(op_type, least, tuple(attributes), inputs, outputs)


@functools.cache
def _lowest_opset(
    op_type: str, least: int, attributes: tuple[str, ...], inputs: int, outputs: int
) -> int:
    import onnx

    opset, last = least, onnx.defs.onnx_opset_version()
    while opset <= last:
        try:
            schema = onnx.defs.get_schema(op_type, opset, "")
        except onnx.defs.SchemaError:
            opset += 1
            continue
        fits = schema.min_input <= inputs <= schema.max_input and outputs <= schema.max_output
        if fits and schema.attributes.keys() >= set(attributes):
            return opset
        opset += 1
    return least
