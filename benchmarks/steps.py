"""Training steps of classifiers with their loss, as closures; `jax_steps` has JAX's.

A closure takes the next batch, inputs and then labels, trains by the cross-entropy of the logits,
and returns it. A framework is imported when its step is made.
"""

from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from benchmarks.workloads import Step

Batches = Iterator[tuple[NDArray[Any], ...]]


def onnxtape_step(model: Any, optimizer: Any, batches: Batches) -> Step:
    """`onnxtape.function` around a `GradientTape`."""
    import onnxtape as ot

    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = model.trainable_variables

    def train(*batch: Any) -> Any:
        *inputs, labels = batch
        with ot.GradientTape() as tape:
            loss = loss_fn(labels, model(*inputs, training=True))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    compiled = ot.function(train, fallback="error")
    return lambda: float(compiled(*next(batches)))


def torch_step(
    loss_of: Callable[..., Any], optimizer: Any, batches: Batches, *, compiled: bool = False
) -> Step:
    """PyTorch; `compiled` wraps model and loss in `torch.compile`.

    For the perceptron, compiling the optimizer as well, wrapping model and loss apart, the C++
    wrapper and ``mode="max-autotune"`` were not faster.
    """
    import torch

    evaluated = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        optimizer.zero_grad()
        loss = evaluated(*map(torch.from_numpy, next(batches)))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def keras_step(model: Any, optimizer: Any, batches: Batches, *, dense: bool = False) -> Step:
    """`tf.function` around a `GradientTape`, with Keras's layers, loss and optimizer.

    For the perceptron ``jit_compile=True`` made no difference beyond the noise; `tf.constant` was
    faster than handing NumPy arrays to the function.

    Args:
        dense: make the gradients of tables dense. Of sparse ones Keras's Adam squares each row
            before it adds up those of one word, and leaves the other rows alone, which is another
            optimizer.
    """
    import keras
    import tensorflow as tf

    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def train(*batch: Any) -> Any:
        *inputs, labels = batch
        with tf.GradientTape() as tape:
            loss = loss_fn(labels, model(*inputs, training=True))
        grads = tape.gradient(loss, variables)
        optimizer.apply([tf.convert_to_tensor(g) for g in grads] if dense else grads, variables)
        return loss

    return lambda: float(train(*map(tf.constant, next(batches))))
