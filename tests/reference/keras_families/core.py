"""The layers of frontend/layers/core.py."""

from __future__ import annotations

from typing import Any

from tests.reference.keras_families.common import Arrays, Program, array, training


def _dense(rank: int, **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        return training(k, k.layers.Dense(3, **options), array((2, 5, 4)[3 - rank :], 1))

    return run


PROGRAMS: dict[str, Program] = {
    "dense": _dense(2),
    "dense_tanh": _dense(2, activation="tanh"),
    "dense_no_bias": _dense(2, use_bias=False),
    "dense_rank_3": _dense(3, activation="relu"),
}
