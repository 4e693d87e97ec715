"""Attention of several heads."""

from __future__ import annotations

import functools
from typing import Any

from onnxtape import constraints, initializers, masks, ops, random, regularizers
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.attention_axes import AttentionAxes
from onnxtape.layers.attention_heads import MultiHead
from onnxtape.ops.axes import refused


class MultiHeadAttention(MultiHead):
    """Attention of several heads ("Attention Is All You Need", Vaswani et al., 2017).

    Args:
        num_heads: how many.
        key_dim: the size of each head's queries and keys.
        value_dim: of its values; by default `key_dim`.
        dropout: probability with which attention weights are dropped while training.
        use_bias: whether projections have biases.
        output_shape: of each result; by default the query's size.
        attention_axes: which axes of (batch, ..., size) are attended along, as if they were one;
            all between the first and the last by default. The others are part of the batch.
        sliding_window: queries see keys less than this far away only.
        flash_attention: None or False; there is one way to compute it.
        use_gate: the heads' results are multiplied by sigmoid(a projection of the query).
        seed: of the dropout.

    Weights: query/kernel (size, num_heads, key_dim), query/bias (num_heads, key_dim), the same for
    key and value, attention_output/kernel (num_heads, value_dim, *output_shape) and its bias.
    """

    supports_masking = True
    # As in Keras: what is added to the output has no mask, and neither has the sum.
    _takes_masks_off = True

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: Any = None,
        attention_axes: Any = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | random.SeedGenerator | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(attention_axes, int):
            attention_axes = (attention_axes,)
        if isinstance(output_shape, int):
            output_shape = (output_shape,)
        super().__init__(
            num_heads,
            num_heads,
            key_dim,
            key_dim if value_dim is None else value_dim,
            None if output_shape is None else tuple(output_shape),
            dropout,
            sliding_window,
            flash_attention,
            use_gate,
            seed,
            {
                "use_bias": use_bias,
                "kernel_initializer": initializers.get(kernel_initializer),
                "bias_initializer": initializers.get(bias_initializer),
                "kernel_regularizer": regularizers.get(kernel_regularizer),
                "bias_regularizer": regularizers.get(bias_regularizer),
                "kernel_constraint": constraints.get(kernel_constraint),
                "bias_constraint": constraints.get(bias_constraint),
            },
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.num_heads, self.key_dim = self._heads, self._key_dim
        self.value_dim, self.dropout = self._value_dim, self._dropout
        self.attention_axes = attention_axes

    def _fits(self, rank: int) -> bool:
        return rank >= 3

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
        """Attend; see `GroupedQueryAttention.call`.

        Where inputs have more than three axes, masks are booleans (batch, ..., queries' axes, keys'
        axes), and scores (batch, other axes, heads, queries' axes, keys' axes).
        """
        what = f"MultiHeadAttention '{self.name}'"
        given = convert_to_tensor(query, self.compute_dtype)
        axes = AttentionAxes(self.attention_axes, B.known_rank(given, what), what)
        options = {
            "return_attention_scores": return_attention_scores,
            "training": training,
            "use_causal_mask": use_causal_mask,
        }
        if axes.trivial:
            return super().call(
                query, value, key, query_mask, value_mask, key_mask, attention_mask, **options
            )
        if axes.several and (use_causal_mask or self._sliding_window is not None):
            raise refused(
                f"{what} attends along several axes, which have no order for use_causal_mask and "
                "sliding_window: give attention_axes=(one axis,), or an attention_mask"
            )
        for x in (query, value, key):
            masks.detach(x)
        value = convert_to_tensor(value, self.compute_dtype)
        key = value if key is None else convert_to_tensor(key, self.compute_dtype)
        found: list[Any] = [] if attention_mask is None else [attention_mask]
        found += [] if query_mask is None else [ops.expand_dims(query_mask, -1)]
        found += [ops.expand_dims(m, -2) for m in (value_mask, key_mask) if m is not None]
        if found:
            attention_mask = axes.fold_mask(functools.reduce(ops.logical_and, found), given, key)
        made = super().call(
            axes.fold(given),
            axes.fold(value),
            axes.fold(key),
            attention_mask=attention_mask,
            **options,
        )
        if not return_attention_scores:
            return axes.unfold(made, given)
        return axes.unfold(made[0], given), axes.unfold_scores(made[1], given, key)


class GroupedQueryAttention(MultiHead):
    """Attention whose query heads share fewer heads of keys and values (Ainslie et al., 2023).

    Args:
        head_dim: the size of each head.
        num_query_heads: how many heads queries have.
        num_key_value_heads: how many keys and values have; divides `num_query_heads`.
        others: as for `MultiHeadAttention`.
    """

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | random.SeedGenerator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_query_heads,
            num_key_value_heads,
            head_dim,
            head_dim,
            None,
            dropout,
            sliding_window,
            flash_attention,
            use_gate,
            seed,
            {
                "use_bias": use_bias,
                "kernel_initializer": initializers.get(kernel_initializer),
                "bias_initializer": initializers.get(bias_initializer),
                "kernel_regularizer": regularizers.get(kernel_regularizer),
                "bias_regularizer": regularizers.get(bias_regularizer),
                "kernel_constraint": constraints.get(kernel_constraint),
                "bias_constraint": constraints.get(bias_constraint),
            },
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.head_dim, self.dropout = head_dim, self._dropout
        self.num_query_heads, self.num_key_value_heads = num_query_heads, num_key_value_heads


#: The name under which Keras has it.
GroupQueryAttention = GroupedQueryAttention
