"""Operators of ai.onnx.ml, written with standard ones: what converters write around a network.

https://onnx.ai/onnx/operators/index.html#ai-onnx-ml has their definitions; the tests compare with
ONNX Runtime's own kernels. Trees, support vectors and linear models are not here: their numbers are
attributes, not weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxtape.engine import B
from onnxtape.tensor import Tensor

DOMAIN = "ai.onnx.ml"

Attributes = Mapping[str, Any]


def array_feature_extractor(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """Elements of the last axis, at flattened places; of a vector they are a row."""
    rows = B.op("Unsqueeze", x[0], [0]) if len(x[0].shape) == 1 else x[0]
    return [B.op("Gather", rows, B.op("Reshape", x[1], [-1]), axis=-1)]


def scaler(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """(x - offset) scale, in float32."""
    shifted = B.op("Sub", B.cast(x[0], np.dtype("f")), np.asarray(attributes["offset"], "f"))
    return [B.op("Mul", shifted, np.asarray(attributes["scale"], "f"))]


def normalizer(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """Rows divided by their largest element or their norm, unless that is 0; in float32."""
    y = B.cast(x[0], np.dtype("f"))
    norms = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}
    size = B.op(norms[attributes.get("norm", "MAX")], y, [-1], keepdims=1)
    divisor = B.op("Where", B.op("Equal", size, 0.0), np.ones((), "f"), size)
    return [B.op("Div", y, divisor)]


#: By their domains and names: the outputs from the inputs.
OPERATORS: dict[str, Callable[[Sequence[Any], Attributes], list[Tensor | None]]] = {
    f"{DOMAIN}::ArrayFeatureExtractor": array_feature_extractor,
    f"{DOMAIN}::Normalizer": normalizer,
    f"{DOMAIN}::Scaler": scaler,
}
