"""Regularizers and constraints: their values and gradients, in layers and in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, gradients, numpy

REGULARIZERS: dict[str, Callable[[Any], Any]] = {
    "l1": lambda k: k.regularizers.L1(),
    "l1_strength": lambda k: k.regularizers.l1(0.3),
    "l2": lambda k: k.regularizers.L2(),
    "l2_strength": lambda k: k.regularizers.l2(l2=0.3),
    "l1_l2": lambda k: k.regularizers.L1L2(0.2, 0.3),
    "l1_l2_nothing": lambda k: k.regularizers.l1_l2(),
    "l1_l2_one": lambda k: k.regularizers.L1L2(l1=0.2),
    "l1_l2_two": lambda k: k.regularizers.L1L2(l2=0.2),
    "orthogonal": lambda k: k.regularizers.OrthogonalRegularizer(),
    "orthogonal_columns": lambda k: k.regularizers.orthogonal_regularizer(0.5, "columns"),
    "named_l1": lambda k: k.regularizers.get("l1"),
    "named_l2": lambda k: k.regularizers.get("L2"),
    "named_l1_l2": lambda k: k.regularizers.get("l1l2"),
    "named_orthogonal": lambda k: k.regularizers.get("orthogonal_regularizer"),
}

CONSTRAINTS: dict[str, Callable[[Any], Any]] = {
    "max_norm": lambda k: k.constraints.MaxNorm(),
    "max_norm_rows": lambda k: k.constraints.MaxNorm(1.0, axis=1),
    "max_norm_axes": lambda k: k.constraints.max_norm(1.5, axis=[0, 1]),
    "min_max_norm": lambda k: k.constraints.MinMaxNorm(2.5, 3.0),
    "min_max_norm_rate": lambda k: k.constraints.MinMaxNorm(0.5, 1.0, rate=0.3, axis=-1),
    "unit_norm": lambda k: k.constraints.UnitNorm(),
    "unit_norm_axes": lambda k: k.constraints.get("UnitNorm"),
    "non_neg": lambda k: k.constraints.get("non_neg"),
}


def _config(made: Any) -> Any:
    """Keras keeps some numbers in float32."""
    config = made.get_config()
    rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in config.items()}
    return np.array(repr(sorted(rounded.items())))


def _penalty(name: str) -> Program:
    def run(k: Any) -> Arrays:
        regularizer = REGULARIZERS[name](k)
        found: Arrays = {"config": _config(regularizer)}
        w = k.ops.convert_to_tensor(array((4, 3), 5))
        again = type(regularizer).from_config(regularizer.get_config())
        found["value"] = numpy(regularizer(w))
        found["again"] = numpy(again(k.ops.convert_to_tensor(array((3, 3), 6))))
        if name not in ("l1_l2_nothing", "named_l1_l2"):
            (gradient,) = gradients(k, lambda: regularizer(w), [w])
            assert gradient is not None
            found["gradient"] = gradient
        return found

    return run


def _constraint(name: str) -> Program:
    def run(k: Any) -> Arrays:
        constraint = CONSTRAINTS[name](k)
        w = array((4, 3), 7)
        w[:, 1] = 0.0
        return {
            "value": numpy(constraint(k.Variable(w))),
            "config": _config(constraint),
        }

    return run


def _losses(k: Any) -> Arrays:
    dense = k.layers.Dense
    model = k.Sequential(
        [
            k.Input((4,)),
            dense(3, kernel_regularizer="l2", bias_regularizer=k.regularizers.L1(0.2)),
            dense(2, kernel_regularizer=k.regularizers.L1L2(0.1, 0.2), activity_regularizer="l1"),
        ]
    )
    model.set_weights([array(w.shape, 20 + i) for i, w in enumerate(model.weights)])
    x = k.ops.convert_to_tensor(array((5, 4), 30))

    def loss() -> Any:
        y = model(x)
        return k.ops.sum(y) + sum(model.losses)

    grads = gradients(k, loss, list(model.trainable_weights))
    model(x)
    found = {f"gradient.{i}": g for i, g in enumerate(grads) if g is not None}
    # Keras and onnxtape differ in which come first.
    found["losses"] = np.sort([numpy(value) for value in model.losses])
    model.layers[0].trainable = False
    found["losses_frozen"] = np.sort([numpy(value) for value in model.losses])
    return found


PROGRAMS: dict[str, Program] = {name: _penalty(name) for name in REGULARIZERS}
PROGRAMS |= {f"constraint_{name}": _constraint(name) for name in CONSTRAINTS}
PROGRAMS["losses"] = _losses
