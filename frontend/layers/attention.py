"""Attention of one head."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape import ops, random
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.core import Dropout
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.ops.promotion import BOOL
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Attention(Layer):
    """softmax(query key^T) value ("Effective Approaches to Attention", Luong et al., 2015).

    Args:
        use_scale: multiply the scores by a weight.
        score_mode: "dot", or "concat": a weight times sum(tanh(query + key)).
        dropout: probability with which attention weights are dropped while training.
        seed: of the dropout.
    """

    supports_masking = True

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | random.SeedGenerator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if score_mode not in ("dot", "concat"):
            raise ValueError(f"Attention's score_mode is 'dot' or 'concat', not {score_mode!r}")
        self.use_scale, self.score_mode = use_scale, score_mode
        self.dropout = float(dropout)
        self._dropout_layer = Dropout(self.dropout, seed=seed, name="dropout")
        self.scale: Variable | None = None
        self.concat_score_weight: Variable | None = None

    def build(self, input_shape: Any) -> None:
        if self.use_scale:
            self.scale = self.add_weight((), "ones", name="scale")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight((), "ones", name="concat_score_weight")
        self.built = True

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        training: bool = False,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        """Attend.

        Args:
            inputs: [query, value] or [query, value, key], of shapes (batch, length, size).
            mask: [query mask, value mask]: booleans (batch, length), or None. Masked queries give
                zeros.
            return_attention_scores: return the probabilities too, (batch, queries, keys).
            use_causal_mask: queries see no later keys.
        """
        what = f"{type(self).__name__} '{self.name}'"
        if not isinstance(inputs, (list, tuple)) or len(inputs) not in (2, 3):
            raise ValueError(f"{what} takes a list: [query, value] or [query, value, key]")
        if mask is not None and (not isinstance(mask, (list, tuple)) or len(mask) not in (2, 3)):
            raise ValueError(f"{what} takes masks as a list: [query mask, value mask]")
        query, value, *rest = (convert_to_tensor(x, self.compute_dtype) for x in inputs)
        key = rest[0] if rest else value
        query_mask, value_mask = (None, None) if mask is None else mask[:2]
        scores = self._scores(query, key)
        allowed = None
        if value_mask is not None:
            allowed = B.op("Unsqueeze", convert_to_tensor(value_mask, BOOL), [1])
        if use_causal_mask:
            rows, columns = (self._numbers(scores, axis) for axis in (1, 2))
            earlier = B.op("LessOrEqual", columns, B.op("Unsqueeze", rows, [1]))
            allowed = earlier if allowed is None else B.op("And", allowed, earlier)
        if allowed is not None:
            lowest = 65504.0 if scores.dtype == np.float16 else 1e9
            hidden = B.op("Mul", B.op("Sub", B.cast(allowed, scores.dtype), 1.0), lowest)
            scores = B.op("Add", scores, hidden)
        weights = ops.softmax(scores)
        result = B.op("MatMul", self._dropout_layer(weights, training=training), value)
        if query_mask is not None:
            kept = B.cast(convert_to_tensor(query_mask, BOOL), result.dtype)
            result = B.op("Mul", result, B.op("Unsqueeze", kept, [2]))
        return (result, weights) if return_attention_scores else result

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The queries' mask."""
        return None if mask is None else mask[0]

    @staticmethod
    def _numbers(scores: Tensor, axis: int) -> Tensor:
        zero, one = B.constant(np.int64(0)), B.constant(np.int64(1))
        return B.op("Range", zero, B.op("Squeeze", B.dim_tensor(scores, axis)), one)

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        """(batch, queries, keys)."""
        if self.concat_score_weight is None:
            scores = B.op("MatMul", query, B.op("Transpose", key, perm=[0, 2, 1]))
            return scores if self.scale is None else B.op("Mul", scores, self.scale.value)
        pairs = self._pairs(query, key)
        if self.scale is not None:
            pairs = B.op("Mul", pairs, self.scale.value)
        total = B.op("ReduceSum", B.op("Tanh", pairs), [3], keepdims=0)
        return B.op("Mul", total, self.concat_score_weight.value)

    @staticmethod
    def _pairs(query: Tensor, key: Tensor) -> Tensor:
        """query + key of all pairs, (batch, queries, keys, size)."""
        return B.op("Add", B.op("Unsqueeze", query, [2]), B.op("Unsqueeze", key, [1]))


class AdditiveAttention(Attention):
    """softmax(sum(scale * tanh(query + key))) value (Bahdanau et al., 2015).

    Args:
        use_scale: whether scale is a weight, a vector of the inputs' size; else 1.
        dropout: probability with which attention weights are dropped while training.
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(use_scale=use_scale, dropout=dropout, **kwargs)

    def build(self, input_shape: Any) -> None:
        if self.use_scale:
            size = input_shape[0][-1]
            if size is None:
                raise refused(
                    f"AdditiveAttention '{self.name}' needs queries of a known size, not "
                    f"{format_shape(input_shape[0])}"
                )
            self.scale = self.add_weight((size,), "glorot_uniform", name="scale")
        self.built = True

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        pairs = B.op("Tanh", self._pairs(query, key))
        if self.scale is None:
            return B.op("ReduceSum", pairs, [3], keepdims=0)
        column = B.op("Unsqueeze", self.scale.value, [1])
        return B.op("Squeeze", B.op("MatMul", pairs, column), [3])
