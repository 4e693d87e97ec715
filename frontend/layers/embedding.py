"""Vectors for integers, and masks for padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape import constraints, initializers, ops, regularizers
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Embedding(Layer):
    """A row of a table for each integer.

    Args:
        input_dim: how many integers there are: 0 to input_dim - 1.
        output_dim: the size of a vector.
        mask_zero: whether 0 is padding: then the vectors carry a mask, which recurrent layers,
            attention, losses and metrics heed.
        weights: the table to begin with.

    Shapes: integers of any shape (...) to (..., output_dim); weight: embeddings (input_dim,
    output_dim).
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, size in (("input_dim", input_dim), ("output_dim", output_dim)):
            if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
                raise ValueError(f"Embedding's {name} is a positive whole number, not {size!r}")
        self.input_dim, self.output_dim = input_dim, output_dim
        self.mask_zero = self.supports_masking = mask_zero
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.embeddings: Variable
        if weights is not None:
            self.build()
            self.set_weights(weights if isinstance(weights, list) else [weights])

    def build(self, input_shape: Any = None) -> None:
        if self.built:
            return
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            name="embeddings",
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            autocast=False,
        )
        self.built = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Where the integers are not 0, with `mask_zero`; else None."""
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def call(self, inputs: Any) -> Tensor:
        places = convert_to_tensor(inputs)
        if places.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
            places = B.cast(places, np.dtype(np.int32))
        # Cast are the rows that are taken, not the table.
        return B.cast(B.op("Gather", self.embeddings.value, places, axis=0), self.compute_dtype)


class Masking(Layer):
    """Steps of which all features are `mask_value` become zeros, which the layers after it skip.

    Shapes: (batch, time, features) to the same; the mask is (batch, time).
    """

    supports_masking = True

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor:
        """Where any feature of a step is not `mask_value`."""
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def call(self, inputs: Any) -> Tensor:
        x = convert_to_tensor(inputs, self.compute_dtype)
        kept = ops.any(ops.not_equal(x, self.mask_value), axis=-1, keepdims=True)
        return ops.where(kept, x, ops.zeros_like(x))
