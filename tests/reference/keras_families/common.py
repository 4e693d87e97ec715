"""What the families' programs share. `k` is `keras` (on TensorFlow) or `onnxtape`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Program = Callable[[Any], Arrays]


def array(shape: Sequence[int], seed: int, low: float = -2.0, high: float = 2.0) -> Any:
    """float32 numbers."""
    shape = tuple(shape)
    return np.random.default_rng((seed, *shape)).uniform(low, high, shape).astype(np.float32)


def numpy(tensor: Any) -> NDArray[Any]:
    return np.array(tensor)


def gradients(
    k: Any, function: Callable[[], Any], sources: Sequence[Any]
) -> list[NDArray[Any] | None]:
    """The gradients of the sum of `function()` by tensors and variables; None if unconnected."""
    if k.__name__ == "keras":
        import tensorflow

        tape = tensorflow.GradientTape()
        sources = [getattr(source, "value", source) for source in sources]
    else:
        tape = k.GradientTape()
    with tape:
        for source in sources:
            tape.watch(source)
        target = function()
    found = tape.gradient(target, list(sources))
    if k.__name__ == "keras":
        # Gradients of tables come as slices.
        found = [None if g is None else tensorflow.convert_to_tensor(g) for g in found]
    return [None if g is None else numpy(g) for g in found]


def fill(layer: Any, seed: int) -> None:
    """Set a built layer's weights to numbers that depend on the seed; variances are positive."""
    layer.set_weights(
        [
            array(w.shape, seed + i, 0.5 if "variance" in w.name else -0.5, 1.0)
            for i, w in enumerate(layer.weights)
        ]
    )


def training(
    k: Any, layer: Any, x: Any, seed: int = 0, steps: int = 3, training: bool = True
) -> Arrays:
    """What a layer or model makes of `x`, and how it learns.

    Args:
        x: an array, or a list of arrays for several inputs.
        seed: of the weights.
        steps: of SGD with rate 0.1 on a random projection of the output.
        training: passed to the layer.

    Returns:
        `output` (in inference), `gradient.input.I` for floating inputs and `gradient.NAME` for
        trainable weights, all before the first step; and `weights.NAME` after the last.
    """
    several = isinstance(x, list)
    inputs = [k.ops.convert_to_tensor(part) for part in (x if several else [x])]

    def call(training: bool) -> Any:
        return layer(inputs if several else inputs[0], training=training)

    call(False)
    fill(layer, seed)
    output = call(False)
    found: Arrays = {"output": numpy(output)}
    projection = array(output.shape, seed + 100)

    def loss() -> Any:
        return k.ops.sum(call(training) * projection)

    names = [f"{i}.{w.name}" for i, w in enumerate(layer.weights)]
    places = {id(w): name for w, name in zip(layer.weights, names, strict=True)}
    variables = list(layer.trainable_weights)
    optimizer = k.optimizers.SGD(0.1)
    for step in range(steps):
        sources = [t for t in inputs if "float" in str(t.dtype)] if step == 0 else []
        grads = gradients(k, loss, [*sources, *variables])
        if step == 0:
            for i in range(len(sources)):
                found[f"gradient.input.{i}"] = _given(grads[i])
            for variable, grad in zip(variables, grads[len(sources) :], strict=True):
                found[f"gradient.{places[id(variable)]}"] = _given(grad)
        if variables:
            optimizer.apply(
                [k.ops.convert_to_tensor(_given(g)) for g in grads[len(sources) :]], variables
            )
        elif step == 0:
            break
    for weight, name in zip(layer.weights, names, strict=True):
        found[f"weights.{name}"] = numpy(weight)
    return found


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays under longer names."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def _given(gradient: NDArray[Any] | None) -> NDArray[Any]:
    assert gradient is not None, "a gradient is missing"
    return gradient
