"""Gradients of attention and of the operators around it.

Attention's backward pass makes the probabilities P again from queries and keys, as flash attention
does (Dao et al., arXiv:2205.14135): with D = rowsum(dO * O), which takes the small output only, the
gradient of the scores, P * (dP - D), is two passes over them.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import same_dim
from onnxtape.compiler.gradients.normalization import wide
from onnxtape.compiler.gradients.places import scatter_add
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import gradient

B = Builder[Any]
N = Record[Any]

#: What output 3 holds, by `qk_matmul_output_mode`.
_RAW, _CAPPED, _MASKED, _PROBABILITIES = range(4)


class _Attention:
    """An Attention node's forward pass up to its probabilities.

    Attributes:
        query, key, value: (batch, heads, length, size) in the dtype to compute in, the query
            scaled, past keys and values included.
        past: how many keys are from the past, as a vector of one; None for no past.
        unit: the scores within the soft cap as fractions of it; None without a cap.
        probabilities: (batch, query heads, queries, keys).
    """

    def __init__(self, b: B, n: N) -> None:
        self.b, self.n = b, n
        q, k, v = (n.required(i) for i in range(3))
        self.dtype = wide(b.dtype(q))
        self.rank = b.known_rank(q, "Attention's gradient")
        q = self._heads_first(q, n.attribute("q_num_heads"))
        k = self._heads_first(k, n.attribute("kv_num_heads"))
        v = self._heads_first(v, n.attribute("kv_num_heads"))
        past_key, past_value = n.input(4), n.input(5)
        self.past = None
        if past_key is not None and past_value is not None:
            self.past = b.dim_tensor(past_key, 2)
            k = b.op("Concat", b.cast(past_key, self.dtype), k, axis=2)
            v = b.op("Concat", b.cast(past_value, self.dtype), v, axis=2)
        self.key, self.value = k, v
        self.query_shape = q
        self.scale = self._scale(q)
        self.query = b.op("Mul", q, self.scale)
        scores = self.split(b.op("MatMul", self.joined(self.query), self.swapped(k)))
        cap = n.attribute("softcap", 0.0)
        self.unit = b.op("Tanh", b.op("Mul", scores, 1.0 / cap)) if cap else None
        if cap:
            scores = b.op("Mul", self.unit, cap)
        bias = self._bias()
        if bias is None:
            self.probabilities = b.op("Softmax", scores, axis=-1)
            return
        # A row without a single key has probabilities and gradients of zero, never exp(inf - inf).
        lowest = float(np.finfo(self.dtype).min)
        attends = b.op("Greater", b.op("ReduceMax", bias, [-1], keepdims=1), lowest)
        scores = b.op("Add", scores, b.op("Max", bias, lowest))
        weights = b.op("Softmax", scores, axis=-1)
        self.probabilities = b.op("Mul", weights, b.cast(attends, self.dtype))

    def _scale(self, q: Any) -> Any:
        given, size = self.n.attribute("scale"), self.b.dim(q, 3)
        if given is not None:
            return given
        if isinstance(size, int):
            return 1.0 / math.sqrt(size)
        width = self.b.cast(self.b.dim_tensor(q, 3), self.dtype)
        return self.b.op("Reciprocal", self.b.op("Sqrt", width))

    # Layouts ------------------------------------------------------------------------------------

    def _heads_first(self, x: Any, heads: int | None) -> Any:
        """(batch, length, heads * size) as (batch, heads, length, size); 4-D as it is."""
        x = self.b.cast(x, self.dtype)
        if self.rank == 4:
            return x
        split = self.b.op("Reshape", x, [0, 0, heads, -1])
        return self.b.op("Transpose", split, perm=[0, 2, 1, 3])

    def heads_first(self, output: Any) -> Any:
        """The output, or its gradient, as (batch, query heads, queries, size)."""
        return self._heads_first(output, self.n.attribute("q_num_heads"))

    def as_given(self, x: Any, like: Any) -> Any:
        """(batch, heads, length, size) in the layout and dtype of input `like`."""
        x = self.b.cast(x, self.b.dtype(like))
        if self.rank == 3:
            x = self.b.op("Transpose", x, perm=[0, 2, 1, 3])
        return self.b.reshape_like(x, like)

    def swapped(self, x: Any) -> Any:
        return self.b.op("Transpose", x, perm=[0, 1, 3, 2])

    @functools.cached_property
    def shared(self) -> bool:
        """Whether several query heads share a key head, or may."""
        heads, key_heads = self.b.dim(self.query_shape, 1), self.b.dim(self.key, 1)
        return not same_dim(heads, key_heads)

    def joined(self, x: Any) -> Any:
        """The rows of query heads that share a key head as rows of one matrix."""
        if not self.shared:
            return x
        last = self.b.dim_tensor(x, 3)
        sizes = [self.b.constant([0]), self.b.dim_tensor(self.key, 1), self.b.constant([-1]), last]
        return self.b.op("Reshape", x, self.b.op("Concat", *sizes, axis=0))

    def split(self, x: Any) -> Any:
        """The reverse of `joined`."""
        if not self.shared:
            return x
        q, last = self.query_shape, self.b.dim_tensor(x, 3)
        sizes = [self.b.constant([0]), self.b.dim_tensor(q, 1), self.b.dim_tensor(q, 2), last]
        return self.b.op("Reshape", x, self.b.op("Concat", *sizes, axis=0))

    # What may attend to what ----------------------------------------------------------------------

    def _bias(self) -> Any:
        """What is added to the scores, -inf where a query must not see a key; None for nothing."""
        b, n = self.b, self.n
        hidden, none = np.asarray(-np.inf, self.dtype), np.zeros((), self.dtype)
        terms = []
        mask = n.input(3)
        if mask is not None:
            if b.dtype(mask) == np.bool_:
                mask = b.op("Where", mask, none, hidden)
            terms.append(self._padded(b.cast(mask, self.dtype)))
        allowed = self._allowed()
        if allowed:
            terms.append(b.op("Where", functools.reduce(self._both, allowed), none, hidden))
        return functools.reduce(lambda x, y: b.op("Add", x, y), terms) if terms else None

    def _both(self, x: Any, y: Any) -> Any:
        return self.b.op("And", x, y)

    def _padded(self, mask: Any) -> Any:
        """A mask may cover the first keys only; the others are hidden then."""
        b = self.b
        rank = b.known_rank(mask, "Attention's gradient")
        if same_dim(b.dim(mask, rank - 1), b.dim(self.key, 2)):
            return mask
        missing = b.op("Sub", b.dim_tensor(self.key, 2), b.dim_tensor(mask, rank - 1))
        pads = b.op("Concat", b.constant([0]), missing, axis=0)
        return b.op("Pad", mask, pads, np.asarray(-np.inf, self.dtype), [-1], mode="constant")

    def _allowed(self) -> list[Any]:
        """Conditions on (queries, keys), or (batch, 1, queries, keys), that must all hold."""
        b, n = self.b, self.n
        left, right = n.attribute("left_window_size", -1), n.attribute("right_window_size", -1)
        causal, lengths = n.attribute("is_causal", 0), n.input(6)
        if not causal and left < 0 and right < 0 and lengths is None:
            return []
        zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
        key = b.op("Range", zero, b.op("Squeeze", b.dim_tensor(self.key, 2)), one)
        queries = b.dim_tensor(self.query_shape, 2)
        position = b.op("Unsqueeze", b.op("Range", zero, b.op("Squeeze", queries), one), [1])
        allowed = []
        if lengths is not None:
            # Lengths of (batch,) against (batch, 1, queries, keys).
            lengths = b.op("Unsqueeze", lengths, [1, 2, 3])
            allowed.append(b.op("Less", key, lengths))
            position = b.op("Add", position, b.op("Sub", lengths, queries))
        elif self.past is not None:
            position = b.op("Add", position, self.past)
        if causal:
            allowed.append(b.op("LessOrEqual", key, position))
        if left >= 0:
            allowed.append(b.op("GreaterOrEqual", key, b.op("Sub", position, left)))
        if right >= 0:
            allowed.append(b.op("LessOrEqual", key, b.op("Add", position, right)))
        return allowed


@gradient("Attention")
def attention(
    b: B, n: N, g: Any = None, g_key: Any = None, g_value: Any = None, g_scores: Any = None
) -> list[Any]:
    """Queries without any key get zeros, and send none back.

    Those of outputs 1 and 2, the keys and values with the past ones before them, are added.
    """
    a = _Attention(b, n)
    mode = n.attribute("qk_matmul_output_mode", _RAW)
    g_scores = None if g_scores is None else b.cast(g_scores, a.dtype)
    arrived = None if g is None else a.heads_first(g)

    def plus(x: Any, y: Any) -> Any:
        return x if y is None else y if x is None else b.op("Add", x, y)

    def add(x: Any, arrived_at: int, mine: Any) -> Any:
        return plus(x, mine if mode == arrived_at else None)

    @functools.cache
    def by_masked_scores() -> Any:
        """By the scores that Softmax takes."""
        p, dp, d = a.probabilities, None, None
        if arrived is not None:
            dp = a.split(b.op("MatMul", a.joined(arrived), a.swapped(a.value)))
            d = b.op("Mul", arrived, a.heads_first(n.outputs[0]))
            d = b.op("ReduceSum", d, [-1], keepdims=1)
        if g_scores is not None and mode == _PROBABILITIES:
            dp = plus(dp, g_scores)
            d = plus(d, b.op("ReduceSum", b.op("Mul", g_scores, p), [-1], keepdims=1))
        found = None if dp is None else b.op("Mul", p, b.op("Sub", dp, d))
        return add(found, _MASKED, g_scores)

    @functools.cache
    def by_product() -> Any:
        """By query times key."""
        found = add(by_masked_scores(), _CAPPED, g_scores)
        if found is not None and a.unit is not None:
            found = b.op("Mul", found, b.op("Sub", 1.0, b.op("Mul", a.unit, a.unit)))
        found = add(found, _RAW, g_scores)
        return None if found is None else a.joined(found)

    def by_query() -> Any:
        if by_product() is None:
            return None
        dq = b.op("Mul", a.split(b.op("MatMul", by_product(), a.key)), a.scale)
        return a.as_given(dq, n.required(0))

    @functools.cache
    def by_keys() -> Any:
        found = None
        if by_product() is not None:
            found = b.op("MatMul", a.swapped(by_product()), a.joined(a.query))
        return plus(found, None if g_key is None else b.cast(g_key, a.dtype))

    @functools.cache
    def by_values() -> Any:
        found = None
        if arrived is not None:
            weights = a.swapped(a.joined(a.probabilities))
            found = b.op("MatMul", weights, a.joined(arrived))
        return plus(found, None if g_value is None else b.cast(g_value, a.dtype))

    def present(make: Any, index: int) -> Any:
        """The part of the keys' or values' gradient that is the node's own input's."""
        found = make()
        if found is not None and a.past is not None:
            found = b.op("Slice", found, a.past, [np.iinfo(np.int64).max], [2])
        return None if found is None else a.as_given(found, n.required(index))

    def past(make: Any, index: int) -> Any:
        found = make()
        if found is None:
            return None
        found = b.op("Slice", found, [0], a.past, [2])
        return b.cast(found, b.dtype(n.required(index)))

    def by_mask() -> Any:
        mask, found = n.required(3), by_masked_scores()
        if found is None:
            return None
        rank = b.known_rank(mask, "Attention's gradient by its mask")
        if not same_dim(b.dim(mask, rank - 1), b.dim(a.key, 2)):
            found = b.op("Slice", found, [0], b.dim_tensor(mask, rank - 1), [-1])
        return b.cast(b.sum_to(found, mask), b.dtype(mask))

    return [
        by_query,
        lambda: present(by_keys, 1),
        lambda: present(by_values, 2),
        by_mask,
        lambda: past(by_keys, 4),
        lambda: past(by_values, 5),
    ]


@gradient("RotaryEmbedding")
def rotary_embedding(b: B, n: N, g: Any) -> list[Any]:
    """By the input: the rotation back. By the caches: what each pair contributes, summed."""
    cos, sin, positions = n.required(1), n.required(2), n.input(3)

    def by_input() -> Any:
        return b.op("RotaryEmbedding", g, cos, b.op("Neg", sin), positions, **n.attributes)

    @functools.cache
    def pairs() -> tuple[Any, Any, Any, Any]:
        return (*_pairs(b, n, n.required(0)), *_pairs(b, n, g))

    def collected(by_angle: Any, cache: Any) -> Any:
        """(batch, length, heads, pairs) summed over heads, and over equal positions."""
        total = b.op("ReduceSum", by_angle, [2], keepdims=0)
        if positions is None:
            return b.sum_to(total, cache)
        places = b.op("Unsqueeze", positions, [-1])
        return scatter_add(b, "ScatterND", b.full_like(cache, 0.0), places, total)

    def by_cos() -> Any:
        x, y, g_x, g_y = pairs()
        return collected(b.op("Add", b.op("Mul", g_x, x), b.op("Mul", g_y, y)), cos)

    def by_sin() -> Any:
        x, y, g_x, g_y = pairs()
        return collected(b.op("Sub", b.op("Mul", g_y, x), b.op("Mul", g_x, y)), sin)

    return [by_input, by_cos, by_sin]


def _pairs(b: B, n: N, x: Any) -> tuple[Any, Any]:
    """The two numbers of every pair that is rotated, each (batch, length, heads, pairs)."""
    if b.known_rank(x, "RotaryEmbedding's gradient") == 4:
        x = b.op("Transpose", x, perm=[0, 2, 1, 3])
    else:
        x = b.op("Reshape", x, [0, 0, n.attribute("num_heads"), -1])
    half = b.op("Shape", n.required(1), start=-1)
    x = b.op("Slice", x, [0], b.op("Mul", half, 2), [3])
    if n.attribute("interleaved", 0):
        first = b.op("Slice", x, [0], [np.iinfo(np.int64).max], [3], [2])
        return first, b.op("Slice", x, [1], [np.iinfo(np.int64).max], [3], [2])
    return b.op("Slice", x, [0], half, [3]), b.op("Slice", x, half, b.op("Mul", half, 2), [3])


@gradient("TensorScatter")
def tensor_scatter(b: B, n: N, g: Any) -> list[Any]:
    """To the update what its places got, to the cache what was not overwritten."""
    update, start = n.required(1), n.input(2)
    rank = b.known_rank(update, "TensorScatter's gradient")
    axis = n.attribute("axis", -2) % rank

    def by_cache() -> Any:
        zeros = b.full_like(update, 0.0)
        return b.op("TensorScatter", g, zeros, start, **n.attributes)

    def by_update() -> Any:
        zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
        length = b.op("Squeeze", b.dim_tensor(update, axis))
        places = b.op("Range", zero, length, one)
        if start is not None:
            places = b.op("Add", places, b.op("Unsqueeze", start, [1]))
            if n.attribute("mode", "linear") == "circular":
                places = b.op("Mod", places, b.dim_tensor(g, axis))
            places = b.op("Unsqueeze", places, [i for i in range(1, rank) if i != axis])
        else:
            places = b.op("Unsqueeze", places, [i for i in range(rank) if i != axis])
        return b.op("GatherElements", g, b.expand_like(places, update), axis=axis)

    return [by_cache, by_update]


@gradient("Swish")
def swish(b: B, n: N, g: Any) -> list[Any]:
    """With s = sigmoid(alpha x) and y = x s: s + alpha y (1 - s)."""
    alpha = n.attribute("alpha", 1.0)
    x = n.required(0)
    s = b.op("Sigmoid", x if alpha == 1.0 else b.op("Mul", x, alpha))
    rest = b.op("Mul", n.outputs[0], b.op("Sub", 1.0, s))
    rest = rest if alpha == 1.0 else b.op("Mul", rest, alpha)
    return [b.op("Mul", g, b.op("Add", s, rest))]
