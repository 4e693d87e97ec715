"""The programs of Keras's guide "Writing a training loop from scratch", from the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, numpy

STEPS = 50


def _tape_and_function(k: Any) -> tuple[Any, Any]:
    if k.__name__ != "keras":
        return k.GradientTape, k.function
    import tensorflow

    return tensorflow.GradientTape, tensorflow.function


def _set(model: Any, seed: int) -> None:
    """Kernels as large as Glorot's, and small biases that are not zero."""
    weights = []
    for i, w in enumerate(model.weights):
        shape = tuple(w.shape)
        field = int(np.prod(shape[:-2]))
        bound = np.sqrt(6 / (field * sum(shape[-2:]))) if len(shape) > 1 else 0.05
        weights.append(array(shape, seed + i, -bound, bound))
    model.set_weights(weights)


def _batches() -> list[tuple[Any, Any]]:
    """Images of ten kinds, each with its own bright pixels; sizes differ."""
    rng = np.random.default_rng(1)
    kinds = rng.uniform(0, 1, (10, 784)) ** 4
    found = []
    for step in range(STEPS):
        y = rng.integers(0, 10, 16 if step % 5 == 4 else 32)
        x = kinds[y] * rng.uniform(0, 1, (len(y), 784))
        found.append((x.astype(np.float32), y))
    return found


def _model(k: Any, *between: Any) -> Any:
    inputs = k.Input(shape=(784,), name="digits")
    x = k.layers.Dense(64, activation="relu")(inputs)
    for layer in between:
        x = layer(x)
    x = k.layers.Dense(64, activation="relu")(x)
    return k.Model(inputs=inputs, outputs=k.layers.Dense(10, name="predictions")(x))


def _loop(k: Any, model: Any, compiled: bool) -> Arrays:
    tape_of, function = _tape_and_function(k)
    _set(model, 3)
    optimizer = k.optimizers.Adam(learning_rate=1e-3)
    loss_fn = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    accuracy = k.metrics.SparseCategoricalAccuracy()

    def train_step(x: Any, y: Any) -> Any:
        with tape_of() as tape:
            logits = model(x, training=True)
            loss_value = loss_fn(y, logits)
            loss_value += sum(model.losses)
        grads = tape.gradient(loss_value, model.trainable_weights)
        optimizer.apply(grads, model.trainable_weights)
        accuracy.update_state(y, logits)
        return loss_value

    step = function(train_step) if compiled else train_step
    batches = _batches()
    losses = [numpy(step(*map(k.ops.convert_to_tensor, batch))) for batch in batches]
    validation = numpy(loss_fn(batches[0][1], model(batches[0][0], training=False)))
    return {
        "losses": np.array(losses),
        "accuracy": numpy(accuracy.result()),
        "validation": validation,
    }


def _first_loop(k: Any) -> Arrays:
    return _loop(k, _model(k), compiled=False)


def _compiled_step(k: Any) -> Arrays:
    return _loop(k, _model(k), compiled=True)


def _add_loss(k: Any) -> Arrays:
    class ActivityRegularizationLayer(k.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, inputs: Any) -> Any:
            self.add_loss(1e-4 * k.ops.sum(inputs))
            return inputs

    return _loop(k, _model(k, ActivityRegularizationLayer()), compiled=True)


def _dcgan(k: Any) -> Arrays:
    """The guide's two models and its step, with the random numbers as arguments.

    Eight steps: after ten, what rounding decides (which of two nearly equal places is a channel's
    maximum, and the sign of a small gradient, which is all that Adam's first steps see) is a change
    of 1e-5 in the losses, and grows. Over 50 steps of 16 images, Keras differs from Keras by
    2.3e-4 in the generator's loss (PyTorch and JAX as its backends), by 4.0e-4 from weights
    that are half of them one unit in the last place larger (TensorFlow), and from its own float64
    numbers by 1.0e-4 to 3.1e-4; onnxtape's, by 1.0e-4 to 4.8e-4 from the same weights.
    """
    layers, ops = k.layers, k.ops
    tape_of, function = _tape_and_function(k)
    discriminator = k.Sequential(
        [
            k.Input(shape=(28, 28, 1)),
            layers.Conv2D(64, (3, 3), strides=(2, 2), padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(128, (3, 3), strides=(2, 2), padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ]
    )
    generator = k.Sequential(
        [
            k.Input(shape=(128,)),
            layers.Dense(7 * 7 * 128),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Reshape((7, 7, 128)),
            layers.Conv2DTranspose(128, (4, 4), strides=(2, 2), padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2DTranspose(128, (4, 4), strides=(2, 2), padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(1, (7, 7), padding="same", activation="sigmoid"),
        ]
    )
    _set(discriminator, 5)
    _set(generator, 20)
    d_optimizer = k.optimizers.Adam(learning_rate=0.0003)
    g_optimizer = k.optimizers.Adam(learning_rate=0.0004)
    loss_fn = k.losses.BinaryCrossentropy(from_logits=True)

    @function  # type: ignore[untyped-decorator]
    def train_step(real_images: Any, latents: Any, label_noise: Any, other_latents: Any) -> Any:
        batch_size = ops.shape(real_images)[0]
        generated_images = generator(latents)
        combined_images = ops.concatenate([generated_images, real_images], axis=0)
        labels = ops.concatenate([ops.ones((batch_size, 1)), ops.zeros((batch_size, 1))], axis=0)
        labels += 0.05 * label_noise
        with tape_of() as tape:
            predictions = discriminator(combined_images)
            d_loss = loss_fn(labels, predictions)
        grads = tape.gradient(d_loss, discriminator.trainable_weights)
        d_optimizer.apply(grads, discriminator.trainable_weights)

        misleading_labels = ops.zeros((batch_size, 1))
        with tape_of() as tape:
            predictions = discriminator(generator(other_latents))
            g_loss = loss_fn(misleading_labels, predictions)
        grads = tape.gradient(g_loss, generator.trainable_weights)
        g_optimizer.apply(grads, generator.trainable_weights)
        return d_loss, g_loss, generated_images

    found: dict[str, list[Any]] = {"d_loss": [], "g_loss": []}
    for step in range(8):
        # The last batches are smaller.
        n = 4 if step < 6 else 2
        batch = (
            array((n, 28, 28, 1), 10 + step, 0, 1),
            array((n, 128), 30 + step),
            array((2 * n, 1), 50 + step, 0, 1),
            array((n, 128), 70 + step),
        )
        d_loss, g_loss, images = train_step(*map(ops.convert_to_tensor, batch))
        found["d_loss"].append(numpy(d_loss))
        found["g_loss"].append(numpy(g_loss))
    return {name: np.array(losses) for name, losses in found.items()} | {"images": numpy(images)}


PROGRAMS: dict[str, Program] = {
    "first_loop": _first_loop,
    "compiled_step": _compiled_step,
    "add_loss": _add_loss,
    "dcgan": _dcgan,
}
