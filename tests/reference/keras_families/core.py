"""The layers of frontend/layers/core.py, activation.py and merging.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, gradients, numpy, training


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


def _einsum_initializer(k: Any) -> Arrays:
    """How large the initial kernel is, which counts inputs and outputs by the equation."""
    found: Arrays = {}
    for equation, shape in (("abc,cde->abde", (None, 40, 30)), ("abde,dec->abc", (None, 50))):
        layer = k.layers.EinsumDense(equation, shape)
        layer.build((None, 7, 40, 30) if equation[2] == "d" else (None, 7, 50))
        bound = np.abs(numpy(layer.kernel)).max()
        found[equation] = np.round(bound, 2)
    return found


def _spectral(k: Any, iterations: int = 1) -> Arrays:
    """Weights and outputs over steps in training and at rest."""
    layer = k.layers.SpectralNormalization(k.layers.Dense(4), power_iterations=iterations)
    x = k.ops.convert_to_tensor(array((5, 3), 2))
    layer(x)
    kernel = next(w for w in layer.weights if w.name == "kernel")
    bias = next(w for w in layer.weights if w.name == "bias")
    kernel.assign(array((3, 4), 3))
    layer.vector_u.assign(array((1, 4), 4))
    found: Arrays = {"rested": numpy(layer(x, training=False))}
    for step in range(3):
        found[f"output.{step}"] = numpy(layer(x, training=True))
        found[f"kernel.{step}"] = numpy(kernel)
        found[f"vector.{step}"] = numpy(layer.vector_u)
        by = gradients(k, lambda: k.ops.sum(layer(x, training=True) ** 2), [kernel, bias])
        for name, gradient in zip(("kernel", "bias"), by, strict=True):
            found[f"gradient.{name}.{step}"] = (
                np.zeros(0, np.float32) if gradient is None else gradient
            )
    return found


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
    "einsum_dense": _layer(
        "EinsumDense", (2, 4, 3), equation="abc,cd->abd", output_shape=(None, 5), bias_axes="d"
    ),
    "einsum_dense_heads": _layer(
        "EinsumDense",
        (2, 4, 3),
        equation="abc,cde->abde",
        output_shape=(None, 2, 5),
        bias_axes="de",
        activation="tanh",
    ),
    "einsum_dense_dots": _layer(
        "EinsumDense", (2, 4, 3, 5), equation="...x,xy->...y", output_shape=6, bias_axes="y"
    ),
    "einsum_dense_dots_behind": _layer(
        "EinsumDense", (2, 3, 4, 5), equation="ab...,bc->ac...", output_shape=6, bias_axes="c"
    ),
    "einsum_dense_fans": _einsum_initializer,
    "spectral": _spectral,
    "spectral_twice": lambda k: _spectral(k, 2),
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
