"""The attention operators of com.microsoft, written with standard ones.

B is the batch, S the queries' length, T the keys', N the heads, H a head's size, D = N H.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxtape.engine import B
from onnxtape.errors import ModelError
from onnxtape.tensor import Tensor

Attributes = Mapping[str, Any]


def attention(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """Self-attention, the projections to queries, keys and values included.

    Inputs: x (B, S, D), weights (D, 3 D), bias (3 D), mask, past, attention bias.
    """
    if x[4] is not None or attributes.get("do_rotary", 0):
        raise ModelError("Attention with past keys or rotary embeddings is not supported")
    projected = B.op("MatMul", x[0], x[1])
    if x[2] is not None:
        projected = B.op("Add", projected, x[2])
    sizes = attributes.get("qkv_hidden_sizes")
    parts = list(sizes) if sizes else [_size(x[1], 1) // 3] * 3
    q, k, v = B.op_multi("Split", projected, parts, outputs=3, axis=-1)
    return [_attended(q, k, v, x[3], x[5], attributes)]


def multi_head_attention(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """Attention of queries (B, S, D) to keys and values (B, T, D), after a bias (3 D).

    Keys and values may be heads already, (B, N, T, H).
    """
    q, k, v, bias, mask, added, *past = x[:8]
    if any(p is not None for p in past):
        raise ModelError("MultiHeadAttention with past keys is not supported")
    if k is None or v is None:
        raise ModelError("MultiHeadAttention with packed inputs is not supported")
    if bias is not None:
        width = _size(q, 2)
        parts = [width, width, _size(bias, 0) - 2 * width]
        biases = B.op_multi("Split", bias, parts, outputs=3, axis=0)
        q, k, v = (B.op("Add", part, b) for part, b in zip((q, k, v), biases, strict=True))
    return [_attended(q, k, v, mask, added, attributes)]


def _size(x: Tensor, axis: int) -> int:
    size = B.dim(x, axis)
    if not isinstance(size, int):
        raise ModelError(f"an attention operator needs to know the size of axis {axis}")
    return size


def _flat(x: Tensor) -> Tensor:
    return B.op("Reshape", x, [0, 0, -1])


def _attended(
    q: Tensor, k: Tensor, v: Tensor, mask: Any, added: Any, attributes: Attributes
) -> Tensor:
    heads = attributes["num_heads"]
    q, k, v = (_heads(x, heads) for x in (q, k, v))
    scale = attributes.get("scale") or 1 / math.sqrt(_size(q, 3))
    scores = B.op("MatMul", B.op("Mul", q, scale), B.op("Transpose", k, perm=[0, 1, 3, 2]))
    if added is not None:
        scores = B.op("Add", scores, added)
    if mask is not None:
        hidden = _hidden(mask, k)
        filler = B.op("Mul", B.cast(hidden, q.dtype), attributes.get("mask_filter_value", -1e4))
        scores = B.op("Add", scores, filler)
    if attributes.get("unidirectional", 0):
        late = B.op("Less", B.op("Unsqueeze", B.positions(q, 2), [1]), B.positions(k, 2))
        scores = B.op("Where", late, np.asarray(np.finfo(q.dtype).min, q.dtype), scores)
    y = B.op("MatMul", B.op("Softmax", scores, axis=-1), v)
    return _flat(B.op("Transpose", y, perm=[0, 2, 1, 3]))


def _heads(x: Tensor, heads: int) -> Tensor:
    if len(x.shape) == 4:
        return x
    return B.op("Transpose", B.op("Reshape", x, [0, 0, heads, -1]), perm=[0, 2, 1, 3])


def _hidden(mask: Tensor, k: Tensor) -> Tensor:
    """Where keys are hidden, so that it broadcasts to (B, N, S, T).

    The mask is a number of keys for each sample (B), or 1 for those to be seen: (B, T), (B, S, T).
    """
    rank = len(mask.shape)
    if rank not in (1, 2, 3):
        raise ModelError(f"an attention mask of rank {rank} is not supported")
    if rank > 1:
        return B.op("Unsqueeze", B.op("Equal", mask, 0), [1, 2] if rank == 2 else [1])
    ends = B.op("Unsqueeze", B.cast(mask, np.dtype(np.int64)), [1])
    return B.op("Unsqueeze", B.op("GreaterOrEqual", B.positions(k, 2), ends), [1, 2])


def rotary_embedding(x: Sequence[Any], attributes: Attributes) -> list[Tensor | None]:
    """Rotations by the angles of positions: (B, S), or the first one alone."""
    values, places, cosines, sines = x[:4]
    if attributes.get("is_packed_batching", 0) or attributes.get("scale", 1.0) != 1.0:
        raise ModelError("RotaryEmbedding with packed batches or a scale is not supported")
    size = attributes.get("rotary_embedding_dim", 0)
    heads = attributes.get("num_heads", 0)
    rank = len(values.shape)
    if rank == 3 and not heads:
        heads = _size(values, 2) // (2 * _size(cosines, 1))
    if len(places.shape) == 1:
        places = B.op("Add", B.positions(values, rank - 2), places)
        shape = B.op("Concat", B.dim_tensor(values, 0), B.dim_tensor(places, 0), axis=0)
        places = B.op("Expand", places, shape)
    return [
        B.op(
            "RotaryEmbedding", values, cosines, sines, places,
            interleaved=attributes.get("interleaved", 0), num_heads=heads,
            rotary_embedding_dim=size,
        )
    ]  # fmt: skip
