"""RNN, GRU and LSTM."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import Array, spread

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
HIDDEN = 2


def _inputs(
    op: str,
    *,
    length: int = 3,
    batch: int = 2,
    directions: int = 1,
    bias: bool = True,
    lengths: Array | None = None,
    states: bool = False,
    peepholes: bool = False,
    layout: int = 0,
) -> list[Any]:
    """Small numbers, so that gates are far from saturation."""
    rows, d = GATES[op] * HIDDEN, directions

    def part(*shape: int) -> Array:
        return spread(shape, -0.9, 1.1)

    x = part(length, batch, 3)
    inputs: list[Any] = [np.swapaxes(x, 0, 1).copy() if layout else x]
    inputs += [part(d, rows, 3), part(d, rows, HIDDEN), part(d, 2 * rows) if bias else None]
    inputs.append(None if lengths is None else lengths.astype(np.int32))
    state = (batch, d, HIDDEN) if layout else (d, batch, HIDDEN)
    inputs += [part(*state) if states else None] * (2 if op == "LSTM" else 1)
    if op == "LSTM":
        inputs.append(part(d, 3 * HIDDEN) if peepholes else None)
    while inputs[-1] is None:
        inputs.pop()
    return inputs


def _case(op: str, note: str, attributes: dict[str, Any] | None = None, **options: Any) -> Case:
    attributes = {"hidden_size": HIDDEN, **(attributes or {})}
    smooth = options.pop("smooth", False)
    both = attributes.get("direction") == "bidirectional"
    inputs = _inputs(op, directions=2 if both else 1, layout=attributes.get("layout", 0), **options)
    outputs = 3 if op == "LSTM" else 2
    return Case(
        op,
        inputs,
        attributes,
        outputs=outputs,
        note=note,
        smooth=smooth,
        # Two steps of differences lose digits in a sum of so many products.
        tolerance=2e-6,
        # ONNX Runtime has no layout 1.
        portable=not attributes.get("layout"),
    )


CASES: list[Case] = [
    _case("RNN", "plain", smooth=True),
    _case("RNN", "reverse", {"direction": "reverse", "activations": ["Affine"],
          "activation_alpha": [0.7], "activation_beta": [0.2]}, states=True, bias=False),
    _case("RNN", "both", {"direction": "bidirectional", "layout": 1,
          "activations": ["LeakyRelu", "ScaledTanh"], "activation_alpha": [0.3, 1.5],
          "activation_beta": [0.8]}, states=True),
    _case("RNN", "lengths", {"activations": ["Softsign"]}, lengths=np.asarray([3, 1]), states=True),
    _case("RNN", "one_step", {"activations": ["Softplus"]}, length=1),
    _case("RNN", "blocks", {"direction": "reverse"}, length=16),
    _case("GRU", "plain", smooth=True, length=2),
    _case("GRU", "before_reset", {"linear_before_reset": 1}, states=True),
    _case("GRU", "before_reset_no_bias", {"linear_before_reset": 1}, bias=False),
    _case("GRU", "both", {"direction": "bidirectional", "activations":
          ["HardSigmoid", "Elu", "Sigmoid", "Tanh"], "activation_alpha": [0.15, 0.9],
          "activation_beta": [0.45]}, lengths=np.asarray([2, 3])),
    _case("GRU", "layout", {"layout": 1, "linear_before_reset": 1, "direction": "reverse"},
          states=True),
    _case("GRU", "blocks", states=True, length=9, batch=1),
    _case("GRU", "blocks_before_reset", {"linear_before_reset": 1}, length=9),
    _case("LSTM", "plain", smooth=True, length=2),
    _case("LSTM", "peepholes", {"direction": "reverse"}, states=True, peepholes=True),
    _case("LSTM", "coupled", {"input_forget": 1}, states=True, peepholes=True, bias=False),
    _case("LSTM", "both", {"direction": "bidirectional"}, lengths=np.asarray([1, 3]), states=True),
    _case("LSTM", "layout", {"layout": 1, "clip": 0.6}, lengths=np.asarray([3, 2]), states=True),
    _case("LSTM", "blocks", lengths=np.asarray([10, 5]), states=True, peepholes=True, length=10),
    _case("LSTM", "blocks_both", {"direction": "bidirectional"}, length=9, batch=1),
]  # fmt: skip
