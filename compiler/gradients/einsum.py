"""The gradient of Einsum, written with matrix products where it is one.

ONNX Runtime's Einsum kernel transposes and copies more than it has to; MatMul and Gemm do not, and
later passes know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import same_dim
from onnxtape.compiler.equations import einsum_labels
from onnxtape.compiler.gradients.places import identity_mask
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import Refusal, gradient

B = Builder[Any]
N = Record[Any]


@dataclass(frozen=True, slots=True)
class Term:
    """A value with one letter for each of its axes."""

    value: Any
    labels: str


@gradient("Einsum", broadcasts=True)
def einsum(b: B, n: N, g: Any) -> list[Any]:
    """By an operand: g times the other operands, summed over the indices that the operand lacks.

    Indices that nothing else has are copied along. Where an index occurs twice in the operand,
    only its diagonal gets anything.
    """
    operands, out = _terms(b, n)

    def by(k: int) -> Any:
        others = [Term(g, out), *(t for i, t in enumerate(operands) if i != k)]
        found = _contract(b, others, _distinct(operands[k].labels))
        return _spread(b, found, operands[k])

    return [partial(by, k) for k in range(len(operands))]


def _terms(b: B, n: N) -> tuple[list[Term], str]:
    """The operands and the output's indices."""
    try:
        labels, out = einsum_labels(n.attribute("equation"), [b.rank(x) for x in n.inputs])
    except ValueError as error:
        raise Refusal(str(error)) from None
    return [Term(x, term) for x, term in zip(n.inputs, labels, strict=True)], out


def _distinct(labels: str) -> str:
    return "".join(dict.fromkeys(labels))


def _contract(b: B, terms: Sequence[Term], wanted: str) -> Term:
    """The product of the terms, summed over all indices but `wanted`, and in that order.

    An index that no term has is missing from the result.
    """
    left = [_diagonal(b, t) for t in terms]
    while len(left) > 1:
        # Those that have most in common first: no outer product where a chain can be followed.
        x, y = max(combinations(left, 2), key=lambda p: len(set(p[0].labels) & set(p[1].labels)))
        left = [t for t in left if t is not x and t is not y]
        later = "".join(t.labels for t in left)
        left.append(_multiply(b, x, y, _distinct(wanted + later)))
    total = _sum_out(b, left[0], wanted)
    return _in_order(b, total, "".join(c for c in wanted if c in total.labels))


def _diagonal(b: B, term: Term) -> Term:
    labels = _distinct(term.labels)
    if labels == term.labels:
        return term
    return Term(b.op("Einsum", term.value, equation=f"{term.labels}->{labels}"), labels)


def _sum_out(b: B, term: Term, kept: str) -> Term:
    """The sum over all indices but those in `kept`."""
    axes = [i for i, c in enumerate(term.labels) if c not in kept]
    if not axes:
        return term
    labels = "".join(c for c in term.labels if c in kept)
    return Term(b.op("ReduceSum", term.value, axes, keepdims=0), labels)


def _in_order(b: B, term: Term, labels: str) -> Term:
    if term.labels == labels:
        return term
    perm = [term.labels.index(c) for c in labels]
    return Term(b.op("Transpose", term.value, perm=perm), labels)


def _multiply(b: B, x: Term, y: Term, kept: str) -> Term:
    """The product of two terms, summed over the indices that are not in `kept`."""
    x, y = _sum_out(b, x, kept + y.labels), _sum_out(b, y, kept + x.labels)
    order = [c for c in kept if c in x.labels or c in y.labels]
    shared = [c for c in x.labels if c in y.labels]
    summed = [c for c in shared if c not in kept]
    if not summed:
        return _outer(b, x, y, "".join(order))
    if not all(same_dim(_dim(b, x, c), _dim(b, y, c)) for c in summed):
        # One of the two may be 1, which Einsum broadcasts and a matrix product does not.
        labels = "".join(order)
        equation = f"{x.labels},{y.labels}->{labels}"
        return Term(b.op("Einsum", x.value, y.value, equation=equation), labels)
    if order and order[-1] not in y.labels:
        x, y = y, x
    return _matrix_product(b, x, y, order, "".join(summed))


def _outer(b: B, x: Term, y: Term, labels: str) -> Term:
    """The product by broadcasting."""
    factors = []
    for term in (x, y):
        value = _in_order(b, term, "".join(c for c in labels if c in term.labels)).value
        missing = [i for i, c in enumerate(labels) if c not in term.labels]
        factors.append(b.op("Unsqueeze", value, missing) if missing else value)
    return Term(b.op("Mul", *factors), labels)


def _matrix_product(b: B, x: Term, y: Term, order: Sequence[str], summed: str) -> Term:
    """x as (batch, rows, summed) times y as (batch, summed, columns)."""
    batch = "".join(c for c in order if c in x.labels and c in y.labels)
    rows = "".join(c for c in order if c not in y.labels)
    columns = "".join(c for c in order if c not in x.labels)
    if not batch:
        trans_x, trans_y = x.labels == summed + rows, y.labels == columns + summed
        left = _matrix(b, x, "", *((summed, rows) if trans_x else (rows, summed)))
        right = _matrix(b, y, "", *((columns, summed) if trans_y else (summed, columns)))
        flags = {"transA": int(trans_x) or None, "transB": int(trans_y) or None}
        product = b.op("Gemm", left, right, **flags)
    else:
        left = _matrix(b, x, batch, rows, summed)
        right = _matrix(b, y, batch, summed, columns)
        product = b.op("MatMul", left, right)
    if len(rows) != 1 or len(columns) != 1:
        sizes = [b.dim(product, i) for i in range(len(batch))]
        lead: list[Any] = sizes
        if batch and not all(isinstance(d, int) for d in sizes):
            lead = [b.op("Shape", product, start=0, end=len(batch))]
        tail = [*_sizes(b, x, rows), *_sizes(b, y, columns)]
        product = b.op("Reshape", product, _joined(b, [*lead, *tail]), allowzero=1)
    return Term(product, batch + rows + columns)


def _matrix(b: B, term: Term, batch: str, first: str, second: str) -> Any:
    """The term's value with all of `first` as one axis and all of `second` as another."""
    value = _in_order(b, term, batch + first + second).value
    if len(first) == 1 and len(second) == 1:
        return value
    sizes = [*_sizes(b, term, batch), _product(b, term, first), _product(b, term, second)]
    return b.op("Reshape", value, _joined(b, sizes), allowzero=1)


def _dim(b: B, term: Term, label: str) -> Any:
    return b.dim(term.value, term.labels.index(label))


def _sizes(b: B, term: Term, labels: str) -> list[Any]:
    """A number for each index or, where that is not known, a vector of length 1."""
    places = [(_dim(b, term, c), term.labels.index(c)) for c in labels]
    return [d if isinstance(d, int) else b.dim_tensor(term.value, i) for d, i in places]


def _product(b: B, term: Term, labels: str) -> Any:
    sizes = _sizes(b, term, labels)
    if all(isinstance(s, int) for s in sizes):
        return int(np.prod(sizes, dtype=np.int64))
    return b.op("ReduceProd", _joined(b, sizes)) if len(sizes) > 1 else sizes[0]


def _joined(b: B, sizes: Sequence[Any]) -> Any:
    """Sizes as one int64 vector."""
    if all(isinstance(s, int) for s in sizes):
        return list(sizes)
    parts = [b.constant([s]) if isinstance(s, int) else s for s in sizes]
    return b.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]


def _spread(b: B, found: Term, operand: Term) -> Any:
    """The gradient by the operand, from one over its distinct indices."""
    labels, value = operand.labels, found.value
    first = [c in found.labels and labels.index(c) == i for i, c in enumerate(labels)]
    missing = [i for i, is_there in enumerate(first) if not is_there]
    if missing:
        value = b.op("Unsqueeze", value, missing)
    for i, c in enumerate(labels):
        if (start := labels.index(c)) != i:
            mask = identity_mask(b, operand.value, i, (start, i), len(labels))
            value = b.op("Where", mask, value, np.zeros((), b.dtype(value)))
    shape, target = b.shape(value), b.shape(operand.value)
    if shape is not None and target is not None:
        pairs = zip(shape, target, strict=True)
        if all(same_dim(s, t) or t == 1 for s, t in pairs):
            return value
    return b.op("Expand", value, b.shape_tensor(operand.value))
