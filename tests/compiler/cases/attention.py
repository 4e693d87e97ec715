"""Attention, rotary embeddings, and the update of a cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.compiler.cases.case import Case, Fixed
from tests.compiler.graphs import Array, spread


def qkv(
    queries: int = 2, keys: int = 3, heads: int = 2, key_heads: int = 2, deep: bool = True
) -> list[Array]:
    """Inputs of a batch of 2, head sizes of 2 for keys and 3 for values."""

    def of(length: int, heads: int, size: int, seed: int) -> Array:
        shape = (2, heads, length, size) if deep else (2, length, heads * size)
        return spread(shape, -1.0, 1.5, seed=seed)

    return [of(queries, heads, 2, 0), of(keys, key_heads, 2, 1), of(keys, key_heads, 3, 2)]


#: Hides some keys of every query, and all of the last query's.
MASK = np.asarray([[True, False, True], [False, False, False]])
PAST = [spread((2, 2, 2, 2), seed=3), spread((2, 2, 2, 3), seed=4)]
FLAT = {"q_num_heads": 2, "kv_num_heads": 2}


#: Those whose second derivatives are checked too; the others add nothing new to them.
TWICE = ("3-d", "grouped", "boolean mask", "past", "mode 2", "mode 3")


def _case(
    inputs: list[Any], note: str, outputs: int = 1, opset: int = 24, **attributes: Any
) -> Case:
    return Case(
        "Attention",
        inputs,
        attributes,
        outputs=outputs,
        note=note,
        opset=opset,
        smooth=note in TWICE,
        portable=note != "short mask",
    )


CASES: list[Case] = [
    _case(qkv(), "4-d", opset=23),
    _case(qkv(deep=False), "3-d", opset=23, **FLAT),
    _case(qkv(heads=4), "grouped"),
    _case(qkv(heads=4, key_heads=1), "one key head", opset=26),
    _case(qkv(heads=4, deep=False), "grouped, 3-d", q_num_heads=4, kv_num_heads=2),
    _case(qkv(3, 3), "causal", opset=23, is_causal=1),
    _case(qkv(3, 2), "causal, more queries", is_causal=1),
    _case(qkv(), "scaled and capped", scale=0.3, softcap=0.5),
    _case([*qkv(), MASK], "boolean mask"),
    _case(
        [*qkv(3, 2), np.asarray([[True, False], [True, True], [False, True]])],
        "causal mask",
        is_causal=1,
    ),
    _case([*qkv(), spread((2, 1, 2, 3), seed=5)], "mask of batches", softcap=0.7),
    _case([*qkv(heads=4), spread((4, 2, 3), seed=5)], "grouped, mask of heads"),
    _case([*qkv(), Fixed(np.where(MASK, 0.3, -np.inf))], "infinite mask"),
    _case([*qkv(), None, *PAST], "past", outputs=3),
    _case([*qkv(deep=False), None, *PAST], "past, 3-d", outputs=3, is_causal=1, **FLAT),
    _case([*qkv(), None, None, None, np.asarray([2, 1])], "lengths"),
    _case([*qkv(2, 3), None, None, None, np.asarray([3, 1])], "lengths, causal", is_causal=1),
    _case([*qkv(), spread((2, 2), seed=5), None, None, np.asarray([2, 1])], "short mask"),
    _case(qkv(3, 4), "window", opset=25, left_window_size=1, right_window_size=1),
    *[
        _case(
            [*qkv(), spread((2, 3), seed=5)],
            f"mode {mode}",
            4,
            qk_matmul_output_mode=mode,
            # The reference evaluator caps what mode 0 shows.
            softcap=0.8 if mode else 0.0,
        )
        for mode in range(4)
    ],
    *[
        Case(
            "RotaryEmbedding",
            # It takes no float64; differences of a product are exact whatever the step.
            [x.astype(np.float32) if x.dtype == np.float64 else x for x in inputs],
            {"interleaved": interleaved, **attributes},
            opset=23,
            note=note,
            smooth=note == "3-d",
            step=1e-2,
            tolerance=1e-3,
        )
        for interleaved in (0, 1)
        for note, inputs, attributes in (
            (
                "4-d",
                [spread((2, 3, 2, 4)), spread((2, 2, 2), seed=1), spread((2, 2, 2), seed=2)],
                {},
            ),
            (
                "3-d",
                [spread((2, 2, 12)), spread((2, 2, 2), seed=1), spread((2, 2, 2), seed=2)],
                {"num_heads": 3},
            ),
            (
                "positions",
                [
                    spread((2, 3, 2, 4)),
                    spread((5, 2), seed=1),
                    spread((5, 2), seed=2),
                    np.asarray([[0, 1], [1, 4]]),
                ],
                {},
            ),
            (
                "part",
                [
                    spread((2, 3, 2, 6)),
                    spread((5, 2), seed=1),
                    spread((5, 2), seed=2),
                    np.asarray([[0, 1], [1, 4]]),
                ],
                {"rotary_embedding_dim": 4},
            ),
        )
    ],
    *[
        Case(
            "TensorScatter",
            [spread((2, 3, 5, 2)), spread((2, 3, 2, 2), seed=1), *start],
            attributes,
            opset=24,
            note=note,
        )
        for note, start, attributes in (
            ("from the start", [], {}),
            ("somewhere", [np.asarray([3, 1])], {}),
            ("around", [np.asarray([4, 1])], {"mode": "circular"}),
        )
    ],
    Case(
        "TensorScatter",
        [spread((2, 5, 3)), spread((2, 2, 3), seed=1), np.asarray([3, 1])],
        {"axis": 1},
        opset=24,
    ),
    Case("Swish", [spread((2, 3))], opset=24),
    Case("Swish", [spread((2, 3))], {"alpha": 1.7}, opset=24),
]
