"""Training steps in JAX, and optimizers as pairs of functions; JAX is imported when made."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray


def donated(
    loss_of: Callable[..., Any],
    optimizer: tuple[Any, Any],
    initial: Sequence[NDArray[Any]],
    batches: Iterator[tuple[NDArray[Any], ...]],
) -> Callable[[], float]:
    """`jax.jit` of a whole step, weights and optimizer state donated, as a closure.

    Args:
        loss_of: of the weights and a batch.
        optimizer: as `adam` makes it.
    """
    import jax

    init, update = optimizer

    def train(weights: Any, state: Any, *batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(weights, *batch)
        return loss, *update(grads, state, weights)

    compiled = jax.jit(train, donate_argnums=(0, 1))
    weights = [jax.numpy.array(value) for value in initial]
    state = init(weights)

    def step() -> float:
        nonlocal weights, state
        loss, weights, state = compiled(weights, state, *next(batches))
        return float(loss)

    return step


def cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean over all labels; logits have the classes along their last axis."""
    import jax

    log_p = jax.nn.log_softmax(logits)
    return -jax.numpy.take_along_axis(log_p, labels[..., None], axis=-1).mean()


def adam(learning_rate: float, epsilon: float) -> tuple[Any, Any]:
    """Adam as ``init(weights)`` and ``update(grads, state, weights) -> weights, state``.

    optax's where it is installed, else written out here.
    """
    try:
        import optax
    except ImportError:
        return _adam_by_hand(learning_rate, epsilon)
    return _from_optax(optax.adam(learning_rate, eps=epsilon))


def adamw(learning_rate: float, epsilon: float, weight_decay: float) -> tuple[Any, Any]:
    """optax's AdamW, in the form of `adam`."""
    import optax

    return _from_optax(optax.adamw(learning_rate, eps=epsilon, weight_decay=weight_decay))


def momentum(learning_rate: float, decay: float) -> tuple[Any, Any]:
    """Gradient descent with momentum, in the form of `adam`."""
    import jax

    def init(weights: Any) -> Any:
        return jax.tree.map(jax.numpy.zeros_like, weights)

    def update(grads: Any, state: Any, weights: Any) -> Any:
        state = jax.tree.map(lambda m, g: decay * m + g, state, grads)
        return jax.tree.map(lambda w, m: w - learning_rate * m, weights, state), state

    return init, update


def _from_optax(optimizer: Any) -> tuple[Any, Any]:
    import optax

    def update(grads: Any, state: Any, weights: Any) -> Any:
        updates, state = optimizer.update(grads, state, weights)
        return optax.apply_updates(weights, updates), state

    return optimizer.init, update


def _adam_by_hand(learning_rate: float, epsilon: float) -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    def init(weights: Any) -> Any:
        zeros = [jnp.zeros_like(weight) for weight in weights]
        return jnp.zeros((), jnp.int32), zeros, [jnp.zeros_like(weight) for weight in weights]

    def update(grads: Any, state: Any, weights: Any) -> Any:
        count, m, v = state
        count = count + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        rate = learning_rate / (1 - 0.9**count)
        correction = 1 - 0.999**count
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v / correction) + epsilon), weights, m, v
        )
        return weights, (count, m, v)

    return init, update
