"""What the layers of attention with several heads share."""

from __future__ import annotations

import inspect
import math
from contextlib import nullcontext
from typing import Any

import numpy as np

from onnxtape import context, masks, ops, random
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.core import Dropout
from onnxtape.layers.layer import Layer
from onnxtape.ops.axes import refused
from onnxtape.ops.normalization import attended, attention_weights
from onnxtape.ops.promotion import BOOL
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Projection(Layer):
    """inputs @ kernel + bias, where the kernel has more than two axes.

    Args:
        inputs, outputs: the kernel's axes that are summed over, and those of the result.
    """

    supports_masking = True

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        common: dict[str, Any],
        activation: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel = self.add_weight(
            (*inputs, *outputs),
            common["kernel_initializer"],
            name="kernel",
            regularizer=common["kernel_regularizer"],
            constraint=common["kernel_constraint"],
        )
        self.bias: Variable | None = None
        if common["use_bias"]:
            self.bias = self.add_weight(
                outputs,
                common["bias_initializer"],
                name="bias",
                regularizer=common["bias_regularizer"],
                constraint=common["bias_constraint"],
            )
        self.activation = activation
        self._sizes = math.prod(inputs), math.prod(outputs)
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        """(..., all inputs) to (..., all outputs)."""
        kernel = B.op("Reshape", self.kernel.value, list(self._sizes))
        y = B.op("MatMul", inputs, kernel)
        if self.bias is not None:
            y = B.op("Add", y, B.op("Reshape", self.bias.value, [-1]))
        return y if self.activation is None else self.activation(y)


class MultiHead(Layer):
    """What MultiHeadAttention and GroupedQueryAttention share."""

    #: Whether the inputs carry no masks any more after the call.
    _takes_masks_off = False

    def __init__(
        self,
        heads: int,
        key_heads: int,
        key_dim: int,
        value_dim: int,
        output_shape: tuple[int, ...] | None,
        dropout: float,
        sliding_window: int | None,
        flash_attention: bool | None,
        use_gate: bool,
        seed: int | random.SeedGenerator | None,
        common: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        what = type(self).__name__
        for name, size in (
            ("number of heads", heads),
            ("number of key heads", key_heads),
            ("key size", key_dim),
            ("value size", value_dim),
        ):
            if size <= 0:
                raise ValueError(f"{what} needs a positive {name}, not {size}")
        if heads % key_heads:
            raise ValueError(f"{what}: {heads} query heads cannot share {key_heads} key heads")
        if sliding_window is not None and sliding_window <= 0:
            raise ValueError(f"{what} needs a positive sliding_window, not {sliding_window}")
        if flash_attention:
            raise ValueError(f"{what}: there is no flash attention; leave it at None")
        self._heads, self._key_heads = heads, key_heads
        self._key_dim, self._value_dim = key_dim, value_dim
        self._output_sizes = output_shape
        self._sliding_window = sliding_window
        self._use_gate = use_gate
        self._common = common
        self._dropout = float(dropout)
        self._seed = seed

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(self.call).bind(*args, **kwargs).arguments
        self._note_inputs(args, kwargs)
        value, key = given["value"], given.get("key")
        shapes = [B.shape(x) for x in (given["query"], value, value if key is None else key)]
        self.build(*shapes)
        self.built = True

    def build(self, query_shape: Any, value_shape: Any = None, key_shape: Any = None) -> None:
        """Create the weights; values are shaped as queries, and keys as values, by default."""
        what = f"{type(self).__name__} '{self.name}'"
        value_shape = query_shape if value_shape is None else value_shape
        shapes = {
            "query": query_shape,
            "key": value_shape if key_shape is None else key_shape,
            "value": value_shape,
        }
        for name, shape in shapes.items():
            if shape is None or not self._fits(len(shape)) or not isinstance(shape[-1], int):
                raise refused(
                    f"{what} takes a {name} of shape (batch, length, a known size), "
                    f"not {format_shape(shape)}"
                )
        query = (self._heads, self._key_dim)
        key, value = (self._key_heads, self._key_dim), (self._key_heads, self._value_dim)
        self.query_dense = self._projection("query", shapes["query"][-1:], query)
        self.key_dense = self._projection("key", shapes["key"][-1:], key)
        self.gate_dense: Projection | None = None
        joined = (self._heads, self._value_dim)
        if self._use_gate:
            self.gate_dense = self._projection("gate", shapes["query"][-1:], joined, ops.sigmoid)
        self.value_dense = self._projection("value", shapes["value"][-1:], value)
        self._dropout_layer = Dropout(self._dropout, seed=self._seed, name="dropout")
        self._result = self._output_sizes or (shapes["query"][-1],)
        self.output_dense = self._projection("attention_output", joined, self._result)
        self.built = True

    def _fits(self, rank: int) -> bool:
        """Whether inputs may have this rank."""
        return rank == 3

    def _projection(
        self, name: str, inputs: Any, outputs: tuple[int, ...], activation: Any = None
    ) -> Projection:
        scopes = context.state.layers
        inside = scopes and scopes[-1] == self.name
        with nullcontext() if inside else context.in_layer(self.name):
            return Projection(
                tuple(inputs), outputs, self._common, activation, name=name, dtype=self.dtype_policy
            )

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        """Attend.

        Args:
            query: (batch, queries, size).
            value, key: (batch, keys, size); the key is the value by default.
            query_mask, value_mask, key_mask: booleans (batch, length); False: padding.
            attention_mask: booleans (batch, queries, keys) or (batch, heads, queries, keys).
            return_attention_scores: return the probabilities too, (batch, heads, queries, keys).
            use_causal_mask: queries see no later keys.

        Returns:
            (batch, queries, output_shape).
        """
        if self._takes_masks_off:
            for x in (query, value, key):
                masks.detach(x)
        given = convert_to_tensor(query, self.compute_dtype)
        value = convert_to_tensor(value, self.compute_dtype)
        key = value if key is None else convert_to_tensor(key, self.compute_dtype)
        q = self._split(self.query_dense(given), self._heads, [0, 2, 1, 3])
        k = self._split(self.key_dense(key), self._key_heads, [0, 2, 3, 1])
        v = self._split(self.value_dense(value), self._key_heads, [0, 2, 1, 3])
        mask = self._mask(q, k, query_mask, value_mask, key_mask, attention_mask)
        weights = attention_weights(
            q, k, scale=1.0 / math.sqrt(self._key_dim), mask=mask, is_causal=use_causal_mask
        )
        y = attended(self._dropout_layer(weights, training=training), v)
        y = B.op("Reshape", B.op("Transpose", y, perm=[0, 2, 1, 3]), [0, 0, self._width()])
        if self.gate_dense is not None:
            y = B.op("Mul", y, self.gate_dense(given))
        y = self.output_dense(y)
        if len(self._result) > 1:
            y = B.op("Reshape", y, [0, 0, *self._result])
        return (y, weights) if return_attention_scores else y

    def _width(self) -> int:
        return self._heads * self._value_dim

    def _split(self, x: Tensor, heads: int, order: list[int]) -> Tensor:
        """(batch, length, heads * size) by heads: (batch, length, heads, size) in that order."""
        return B.op("Transpose", B.op("Reshape", x, [0, 0, heads, -1]), perm=order)

    def _mask(
        self,
        query: Tensor,
        key: Tensor,
        query_mask: Any,
        value_mask: Any,
        key_mask: Any,
        attention_mask: Any,
    ) -> Tensor | None:
        """All masks as one that broadcasts to (batch, heads, queries, keys)."""
        found = []
        if attention_mask is not None:
            mask = convert_to_tensor(attention_mask, BOOL)
            found.append(B.op("Unsqueeze", mask, [1]) if B.rank(mask) == 3 else mask)
        if query_mask is not None:
            found.append(B.op("Unsqueeze", convert_to_tensor(query_mask, BOOL), [1, 3]))
        found += [
            B.op("Unsqueeze", convert_to_tensor(mask, BOOL), [1, 2])
            for mask in (value_mask, key_mask)
            if mask is not None
        ]
        if self._sliding_window is not None:
            zero, one = B.constant(np.int64(0)), B.constant(np.int64(1))
            rows = B.op("Range", zero, B.op("Squeeze", B.dim_tensor(query, 2)), one)
            columns = B.op("Range", zero, B.op("Squeeze", B.dim_tensor(key, 3)), one)
            distance = B.op("Abs", B.op("Sub", columns, B.op("Unsqueeze", rows, [1])))
            found.append(B.op("Less", distance, self._sliding_window))
        if not found:
            return None
        total = found[0]
        for mask in found[1:]:
            total = B.op("And", total, mask)
        return total
