"""The GAN of Keras's guide "Writing a training loop from scratch", batch 64, two Adams, float32.

One step trains the discriminator (74,625 parameters) on 64 generated images and 64 real ones, then
the generator (1,339,905) against the discriminator that has just been updated. The random numbers
are inputs, so that every framework sees the same; the loss is the sum of both.

With stride 2, Keras pads after the image and PyTorch before it. Both compute the same network on
mirrored images with mirrored kernels, which is what PyTorch is given: each has its own padding.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import adam
from benchmarks.workloads import Problem, Step, Workload

BATCH = 64
SIDE = 28
LATENT = 128
SMALL = (7, 7, 128)
SLOPE = 0.2
D_RATE, G_RATE = 3e-4, 4e-4
EPSILON = 1e-10
"""Small, for Keras adds it before bias correction and PyTorch after."""
D_WEIGHTS = 6
"""How many of the problem's weights are the discriminator's, which come first."""


def problem() -> Problem:
    """Glorot weights; batches of real images, two of latent vectors, and labels with noise."""
    random = np.random.default_rng(0)

    def uniform(*shape: int) -> list[NDArray[np.float32]]:
        places = int(np.prod(shape[:-2]))
        limit = np.sqrt(6 / (places * (shape[-2] + shape[-1])))
        return [random.uniform(-limit, limit, shape).astype(np.float32)]

    def zeros(count: int) -> list[NDArray[np.float32]]:
        return [np.zeros(count, np.float32)]

    small = int(np.prod(SMALL))
    weights = [
        *(uniform(3, 3, 1, 64) + zeros(64)),
        *(uniform(3, 3, 64, 128) + zeros(128)),
        *(uniform(128, 1) + zeros(1)),
        *(uniform(LATENT, small) + zeros(small)),
        *(uniform(4, 4, 128, SMALL[-1]) + zeros(128)),
        *(uniform(4, 4, 128, 128) + zeros(128)),
        *(uniform(7, 7, 128, 1) + zeros(1)),
    ]
    rows, columns = np.mgrid[:SIDE, :SIDE]
    batches = []
    for _ in range(8):
        y, x, size = (random.uniform(*span, (BATCH, 1, 1)) for span in ((8, 20), (8, 20), (3, 7)))
        discs = (rows - y) ** 2 + (columns - x) ** 2 < size**2
        # With noise, for frameworks share gradients differently between equal maxima.
        images = 0.8 * discs + 0.2 * random.random((BATCH, SIDE, SIDE))
        latent = random.standard_normal((2, BATCH, LATENT), dtype=np.float32)
        # 1 is for generated, 0 for real images.
        labels = np.float32([1, 0]) + 0.05 * random.random((BATCH, 2), dtype=np.float32)
        batches.append((images[..., None].astype(np.float32), *latent, labels))
    return Problem(weights, batches)


def _keras_models(module: Any, problem: Problem) -> tuple[Any, Any]:
    """Discriminator and generator of Keras's layers, which `module` (Keras or onnxtape) has."""
    layers, Input, Sequential = module.layers, module.Input, module.Sequential

    def leaky() -> Any:
        return layers.LeakyReLU(negative_slope=SLOPE)

    discriminator = Sequential(
        [
            Input((SIDE, SIDE, 1)),
            layers.Conv2D(64, 3, strides=2, padding="same"),
            leaky(),
            layers.Conv2D(128, 3, strides=2, padding="same"),
            leaky(),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ]
    )
    generator = Sequential(
        [
            Input((LATENT,)),
            layers.Dense(int(np.prod(SMALL))),
            leaky(),
            layers.Reshape(SMALL),
            layers.Conv2DTranspose(128, 4, strides=2, padding="same"),
            leaky(),
            layers.Conv2DTranspose(128, 4, strides=2, padding="same"),
            leaky(),
            layers.Conv2D(1, 7, padding="same", activation="sigmoid"),
        ]
    )
    discriminator.set_weights(problem.weights[:D_WEIGHTS])
    generator.set_weights(problem.weights[D_WEIGHTS:])
    return discriminator, generator


def _keras_step(module: Any, ops: Any, tape: Any, problem: Problem) -> Any:
    """The step of Keras's guide, with `module`'s layers, losses and optimizers."""
    discriminator, generator = _keras_models(module, problem)
    d_optimizer = module.optimizers.Adam(D_RATE, epsilon=EPSILON)
    g_optimizer = module.optimizers.Adam(G_RATE, epsilon=EPSILON)
    d_optimizer.build(discriminator.trainable_weights)
    g_optimizer.build(generator.trainable_weights)
    loss_fn = module.losses.BinaryCrossentropy(from_logits=True)

    def train(real: Any, first: Any, second: Any, labels: Any) -> Any:
        images = ops.concatenate([generator(first), real], axis=0)
        labels = ops.concatenate([labels[:, :1], labels[:, 1:]], axis=0)
        with tape() as d_tape:
            d_loss = loss_fn(labels, discriminator(images))
        grads = d_tape.gradient(d_loss, discriminator.trainable_weights)
        d_optimizer.apply(grads, discriminator.trainable_weights)
        with tape() as g_tape:
            predictions = discriminator(generator(second))
            g_loss = loss_fn(ops.zeros_like(predictions), predictions)
        grads = g_tape.gradient(g_loss, generator.trainable_weights)
        g_optimizer.apply(grads, generator.trainable_weights)
        return d_loss + g_loss

    return train


def build_onnxtape(problem: Problem) -> Step:
    """`onnxtape.function` around two `GradientTape`s."""
    import onnxtape as ot

    batches = itertools.cycle(problem.batches)
    step = _keras_step(ot, ot.ops, ot.GradientTape, problem)
    compiled = ot.function(step, fallback="error")
    return lambda: float(compiled(*next(batches)))


def _mirrored(problem: Problem) -> tuple[list[NDArray[np.float32]], Iterator[Any]]:
    """Weights and batches as PyTorch takes them, places in reverse order."""
    weights = []
    for value in problem.weights:
        if value.ndim == 4:
            value = value[::-1, ::-1].transpose(3, 2, 0, 1)
        elif value.shape[-1] == np.prod(SMALL):
            value = value.reshape(-1, *SMALL)[:, ::-1, ::-1].transpose(3, 1, 2, 0)
            value = value.reshape(-1, value.shape[-1])
            value = value[:, 0] if value.shape[-1] == 1 else value
        elif value.ndim == 2:
            value = value.T
        weights.append(np.ascontiguousarray(value))
    batches = [
        (np.ascontiguousarray(real[:, ::-1, ::-1].transpose(0, 3, 1, 2)), *others)
        for real, *others in problem.batches
    ]
    return weights, itertools.cycle(batches)


def build_torch(problem: Problem, compiled: bool = False) -> Step:
    """PyTorch with its fused Adam; `compiled` wraps models and losses in `torch.compile`."""
    import torch
    from torch import nn

    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 3, 2, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(64, 128, 3, 2, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 1),
    )
    generator = nn.Sequential(
        nn.Linear(LATENT, int(np.prod(SMALL))),
        nn.LeakyReLU(SLOPE),
        nn.Unflatten(1, (SMALL[-1], *SMALL[:2])),
        nn.ConvTranspose2d(SMALL[-1], 128, 4, 2, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.ConvTranspose2d(128, 128, 4, 2, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(128, 1, 7, padding=3),
        nn.Sigmoid(),
    )
    weights, batches = _mirrored(problem)
    parameters = [*discriminator.parameters(), *generator.parameters()]
    with torch.no_grad():
        for parameter, value in zip(parameters, weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
    d_optimizer, g_optimizer = (
        torch.optim.Adam(model.parameters(), rate, eps=EPSILON, fused=True)
        for model, rate in ((discriminator, D_RATE), (generator, G_RATE))
    )
    zeros = torch.zeros(BATCH, 1)
    loss_fn = nn.functional.binary_cross_entropy_with_logits

    def d_forward(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return loss_fn(discriminator(images), labels)

    def g_forward(latent: torch.Tensor) -> torch.Tensor:
        return loss_fn(discriminator(generator(latent)), zeros)

    def generate(latent: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = generator(latent)
        return images

    if compiled:
        d_forward, g_forward, generate = map(torch.compile, (d_forward, g_forward, generate))

    def step() -> float:
        real, first, second, labels = map(torch.from_numpy, next(batches))
        with torch.no_grad():
            images = torch.cat([generate(first), real])
        d_optimizer.zero_grad()
        d_loss = d_forward(images, labels.T.reshape(-1, 1))
        d_loss.backward()
        d_optimizer.step()
        # The discriminator's gradients are not wanted here.
        discriminator.requires_grad_(False)
        g_optimizer.zero_grad()
        g_loss = g_forward(second)
        g_loss.backward()
        g_optimizer.step()
        discriminator.requires_grad_(True)
        return float(d_loss.detach() + g_loss.detach())

    return step


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile`."""
    return build_torch(problem, compiled=True)


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step with donated weights and optimizer states."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    batches = itertools.cycle(problem.batches)
    d_init, d_update = adam(D_RATE, EPSILON)
    g_init, g_update = adam(G_RATE, EPSILON)
    layout = ("NHWC", "HWIO", "NHWC")

    def leaky(x: Any) -> Any:
        return jax.nn.leaky_relu(x, SLOPE)

    def conv(x: Any, kernel: Any, bias: Any, stride: int = 1) -> Any:
        strides = (stride, stride)
        y = lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=layout)
        return y + bias

    def enlarged(x: Any, kernel: Any, bias: Any) -> Any:
        """Keras's transposed convolution."""
        y = lax.conv_transpose(
            x, kernel, (2, 2), "SAME", dimension_numbers=layout, transpose_kernel=True
        )
        return y + bias

    def discriminate(weights: Any, x: Any) -> Any:
        x = leaky(conv(x, *weights[:2], stride=2))
        x = leaky(conv(x, *weights[2:4], stride=2))
        return x.max((1, 2)) @ weights[4] + weights[5]

    def generate(weights: Any, latent: Any) -> Any:
        x = leaky(latent @ weights[0] + weights[1]).reshape(-1, *SMALL)
        x = leaky(enlarged(x, *weights[2:4]))
        x = leaky(enlarged(x, *weights[4:6]))
        return jax.nn.sigmoid(conv(x, *weights[6:]))

    def cross_entropy(logits: Any, labels: Any) -> Any:
        softplus = jnp.logaddexp(-jnp.abs(logits), 0)
        return (jnp.maximum(logits, 0) - logits * labels + softplus).mean()

    def d_loss_fn(weights: Any, images: Any, labels: Any) -> Any:
        return cross_entropy(discriminate(weights, images), labels)

    def g_loss_fn(weights: Any, critic: Any, latent: Any) -> Any:
        return cross_entropy(discriminate(critic, generate(weights, latent)), 0)

    def train(state: Any, real: Any, first: Any, second: Any, labels: Any) -> Any:
        critic, d_state, maker, g_state = state
        images = jnp.concatenate([generate(maker, first), real])
        labels = labels.T.reshape(-1, 1)
        d_loss, grads = jax.value_and_grad(d_loss_fn)(critic, images, labels)
        critic, d_state = d_update(grads, d_state, critic)
        g_loss, grads = jax.value_and_grad(g_loss_fn)(maker, critic, second)
        maker, g_state = g_update(grads, g_state, maker)
        return d_loss + g_loss, (critic, d_state, maker, g_state)

    compiled = jax.jit(train, donate_argnums=0)
    weights = [jnp.array(value) for value in problem.weights]
    critic, maker = weights[:D_WEIGHTS], weights[D_WEIGHTS:]
    state = critic, d_init(critic), maker, g_init(maker)

    def step() -> float:
        nonlocal state
        loss, state = compiled(state, *next(batches))
        return float(loss)

    return step


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras
    import tensorflow as tf

    batches = itertools.cycle(problem.batches)
    compiled = tf.function(_keras_step(keras, keras.ops, tf.GradientTape, problem))
    return lambda: float(compiled(*map(tf.constant, next(batches))))


WORKLOAD = Workload(
    title=f"DCGAN of Keras's guide, batch {BATCH}, two Adams",
    steps=2,
    problem=problem,
    builders={
        "onnxtape": build_onnxtape,
        "torch": build_torch,
        "torch-compile": build_torch_compile,
        "jax": build_jax,
        "tensorflow": build_tensorflow,
    },
)
