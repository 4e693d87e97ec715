"""The layers of frontend/layers/core.py, activation.py and merging.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, numpy, training


def _layer(name: str, shape: tuple[int, ...], **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        return training(k, getattr(k.layers, name)(**options), array(shape, 1))

    return run


def _merged(name: str, *shapes: tuple[int, ...], **options: Any) -> Program:
    def run(k: Any) -> Arrays:
        inputs = [array(shape, i) for i, shape in enumerate(shapes)]
        return training(k, getattr(k.layers, name)(**options), inputs)

    return run


def _regularized(k: Any) -> Arrays:
    """Losses of activities and weights, in the order in which they are listed."""
    x = array((4, 3), 1)
    model = k.Sequential(
        [
            k.layers.Dense(5, kernel_regularizer="l2", activity_regularizer="l1"),
            k.layers.ActivityRegularization(0.1, 0.2),
            k.layers.Dense(2, bias_regularizer=k.regularizers.L1L2(0.01, 0.02)),
        ]
    )
    model(x)
    model.set_weights([array(w.shape, 7) for w in model.weights])
    model(x)
    return {"losses": np.array([numpy(loss) for loss in model.losses])}


def _softmax_mask(k: Any) -> Arrays:
    mask = np.array([[True, False, True, True], [False, True, True, False]])
    return {"masked": numpy(k.layers.Softmax()(array((2, 4), 2), mask=mask))}


def _functions(k: Any) -> Arrays:
    """The functional forms, on symbolic inputs."""
    x, y = k.Input((3,)), k.Input((3,))
    of = k.layers
    outputs = [
        of.add([x, y]), of.subtract([x, y]), of.multiply([x, y]), of.average([x, y]),
        of.maximum([x, y]), of.minimum([x, y]), of.concatenate([x, y]), of.dot([x, y], axes=1),
    ]  # fmt: skip
    found = k.Model([x, y], outputs)([array((2, 3), 1), array((2, 3), 2)])
    return {str(i): numpy(t) for i, t in enumerate(found)}


PROGRAMS: dict[str, Program] = {
    "dense": _layer("Dense", (5, 4), units=3),
    "dense_tanh": _layer("Dense", (5, 4), units=3, activation="tanh"),
    "dense_no_bias": _layer("Dense", (5, 4), units=3, use_bias=False),
    "dense_rank_3": _layer("Dense", (2, 5, 4), units=3, activation="relu"),
    "relu": _layer("ReLU", (3, 5)),
    "relu_bound": _layer("ReLU", (3, 5), max_value=1.0),
    "relu_slope": _layer("ReLU", (3, 5), max_value=1.0, negative_slope=0.1, threshold=0.5),
    "leaky_relu": _layer("LeakyReLU", (3, 5)),
    "prelu": _layer("PReLU", (3, 5)),
    "prelu_shared": _layer("PReLU", (3, 5, 2), shared_axes=[1]),
    "elu": _layer("ELU", (3, 5), alpha=0.7),
    "softmax": _layer("Softmax", (3, 5)),
    "softmax_axes": _layer("Softmax", (3, 5, 2), axis=[1, 2]),
    "softmax_mask": _softmax_mask,
    "permute": _layer("Permute", (2, 3, 4), dims=(2, 1)),
    "repeat_vector": _layer("RepeatVector", (2, 3), n=4),
    "lambda": _layer("Lambda", (2, 3), function=lambda x: x * x),
    "activity_regularization": _layer("ActivityRegularization", (2, 3), l1=0.1),
    "regularized": _regularized,
    "add": _merged("Add", (2, 3), (2, 3), (2, 3)),
    "add_ranks": _merged("Add", (2, 3), (2, 4, 3)),
    "subtract": _merged("Subtract", (2, 3), (2, 3)),
    "multiply": _merged("Multiply", (2, 3, 4), (2, 1, 4)),
    "average": _merged("Average", (2, 3), (2, 3), (2, 3)),
    "maximum": _merged("Maximum", (2, 3), (2, 3), (2, 3)),
    "minimum": _merged("Minimum", (2, 3), (2, 3)),
    "concatenate": _merged("Concatenate", (2, 3), (2, 1), (2, 2)),
    "concatenate_axis": _merged("Concatenate", (2, 3, 2), (2, 1, 2), axis=1),
    "dot": _merged("Dot", (2, 3), (2, 3), axes=1),
    "dot_matrices": _merged("Dot", (2, 3, 4), (2, 4, 5), axes=(2, 1)),
    "dot_mixed": _merged("Dot", (2, 3, 4), (2, 4), axes=(2, 1)),
    "dot_normalized": _merged("Dot", (2, 3), (2, 3), axes=1, normalize=True),
    "functions": _functions,
}
