"""Matrix products and determinants."""

from __future__ import annotations

from itertools import cycle, product

import numpy as np

from tests.compiler.cases.case import Case
from tests.compiler.graphs import spread

#: All combinations of ranks 1 to 4, with batch dimensions equal, of size 1, and missing.
MATMUL = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((3,), (2, 3, 4)),
    ((3,), (2, 5, 3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((2, 3), (1, 3, 4)),
    ((2, 3), (2, 2, 3, 4)),
    ((5, 2, 3), (3,)),
    ((5, 2, 3), (3, 4)),
    ((1, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((2, 2, 3), (3, 2, 3, 1)),
    ((1, 2, 3), (3, 2, 3, 1)),
    ((3, 2, 2, 3), (3,)),
    ((3, 2, 2, 3), (3, 4)),
    ((3, 2, 2, 3), (2, 3, 1)),
    ((3, 2, 2, 3), (1, 3, 1)),
    ((3, 2, 2, 3), (3, 2, 3, 1)),
    ((1, 2, 2, 3), (3, 1, 3, 1)),
    # Empty batches.
    ((0, 3), (3, 4)),
    ((0, 2, 3), (3, 4)),
    ((0, 2, 3), (1, 3, 4)),
]

#: Of a product of shape (2, 4).
BIASES = [None, (), (1,), (4,), (1, 4), (2, 1), (2, 4)]


#: alpha and beta.
FACTORS = [(1.0, 1.0), (0.5, 1.0), (1.0, 2.0), (0.5, -3.0)]


def _gemm() -> list[Case]:
    """All flags with all biases, the factors in turn; all flags with all factors."""
    factors = cycle(FACTORS)
    wanted = [(bias, next(factors)) for _ in range(4) for bias in BIASES]
    cases = {}
    for i, (trans_a, trans_b) in enumerate(product((0, 1), repeat=2)):
        combinations = wanted[i * len(BIASES) : (i + 1) * len(BIASES)]
        for bias, (alpha, beta) in [*combinations, *[((4,), f) for f in FACTORS]]:
            inputs = [
                spread((3, 2) if trans_a else (2, 3)),
                spread((4, 3) if trans_b else (3, 4), seed=1),
            ]
            if bias is not None:
                inputs.append(spread(bias, seed=2))
            attributes = {"transA": trans_a, "transB": trans_b, "alpha": alpha, "beta": beta}
            case = Case("Gemm", inputs, attributes)
            cases[case.id] = case
    return list(cases.values())


CASES: list[Case] = [
    *[Case("MatMul", [spread(x), spread(y, seed=1)]) for x, y in MATMUL],
    *_gemm(),
    Case("Gemm", [spread((2, 3)), spread((3, 4)), spread((4,))], note="no attributes"),
    Case("Gemm", [spread((2, 3)), spread((3, 4)), spread((4,))], {"beta": 0.0}),
    Case("Gemm", [spread((0, 3)), spread((3, 4)), spread((4,))], note="empty batch"),
    *[Case("Det", [spread(shape)]) for shape in [(1, 1), (2, 2), (3, 3), (2, 1, 3, 3), (4, 4)]],
    Case("Det", [np.asarray([[1.0, 2.0], [2.0, 4.0]])], note="singular"),
    Case("Det", [np.outer([1.0, -1.0, 2.0], [0.5, 1.0, 3.0])], note="of rank 1"),
    Case("Det", [spread((0, 2, 2))], note="no matrices"),
]
