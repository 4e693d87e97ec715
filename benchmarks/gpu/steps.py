"""One training step of a workload in a framework: what is timed."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.sizes import Dcgan, Gpt, Resnet, batch_of

Size = Gpt | Resnet | Dcgan
Step = Callable[[], float]


def onnxtape_step(size: Size, precision: str, device: str) -> Step:
    """`ot.function` around a `GradientTape`, recorded as a CUDA graph where that can be."""
    import onnxtape as ot
    from benchmarks.gpu import keras_models

    options = {"enable_cuda_graph": 1, "use_tf32": 1} if device == "cuda" else {}
    ot.set_default_device(device, **options)
    if precision != "float32":
        ot.set_mixed_precision(precision)  # type: ignore[arg-type]
    x, y = batch_of(size)
    if isinstance(size, Dcgan):
        generator, discriminator = keras_models.dcgan(ot, size)
        run = _adversarial(ot, generator, discriminator, size)
        compiled = ot.function(run, fallback="error")
        return lambda: float(compiled(x))
    model = keras_models.gpt(ot, size) if isinstance(size, Gpt) else keras_models.resnet(ot, size)
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer: Any = ot.optimizers.AdamW(1e-4)
    if precision == "float16":
        optimizer = ot.optimizers.LossScaleOptimizer(optimizer)

    def train(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
            scaled = optimizer.scale_loss(loss)
        weights = model.trainable_weights
        optimizer.apply(tape.gradient(scaled, weights), weights)
        return loss

    compiled = ot.function(train, fallback="error")
    return lambda: float(compiled(x, y))


def _adversarial(ot: Any, generator: Any, discriminator: Any, size: Dcgan) -> Callable[..., Any]:
    loss_fn = ot.losses.BinaryCrossentropy(from_logits=True)
    optimizers = [ot.optimizers.Adam(3e-4), ot.optimizers.Adam(4e-4)]
    if ot.dtype_policy().name == "mixed_float16":
        optimizers = [ot.optimizers.LossScaleOptimizer(o) for o in optimizers]
    for_discriminator, for_generator = optimizers
    fake_and_real = np.repeat(np.float32([1, 0]), size.batch)[:, None]

    def train(images: Any) -> Any:
        noise = ot.random.normal((size.batch, size.latent))
        joined = ot.ops.concatenate([generator(noise), images], axis=0)
        with ot.GradientTape() as tape:
            loss = loss_fn(fake_and_real, discriminator(joined))
            scaled = for_discriminator.scale_loss(loss)
        weights = discriminator.trainable_weights
        for_discriminator.apply(tape.gradient(scaled, weights), weights)
        with ot.GradientTape() as tape:
            fooled = discriminator(generator(ot.random.normal((size.batch, size.latent))))
            wanted = loss_fn(np.zeros((size.batch, 1), np.float32), fooled)
            scaled = for_generator.scale_loss(wanted)
        weights = generator.trainable_weights
        for_generator.apply(tape.gradient(scaled, weights), weights)
        return loss + wanted

    return train


def torch_step(size: Size, precision: str, device: str, *, compiled: bool) -> Step:
    """PyTorch, with autocast and a scaled loss where they are due; perhaps `torch.compile`."""
    import torch
    from torch.nn import functional

    from benchmarks.gpu import torch_models

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    x, y = batch_of(size)
    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    cast: Any = torch.autocast(device, kind, enabled=precision != "float32")
    scaler = torch.amp.GradScaler(device, enabled=precision == "float16")
    wrap: Any = torch.compile if compiled else lambda module: module

    def update(loss: Any, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    if isinstance(size, Dcgan):
        generator, discriminator = (wrap(m.to(device)) for m in torch_models.dcgan(size))
        of_discriminator = torch.optim.Adam(discriminator.parameters(), 3e-4)
        of_generator = torch.optim.Adam(generator.parameters(), 4e-4)
        labels = torch.tensor([1.0, 0.0], device=device).repeat_interleave(size.batch)[:, None]
        loss_of = functional.binary_cross_entropy_with_logits

        def adversarial() -> float:
            images = torch.from_numpy(x).permute(0, 3, 1, 2).to(device)
            with cast:
                noise = torch.randn(size.batch, size.latent, device=device)
                joined = torch.cat([generator(noise).detach(), images])
                loss = loss_of(discriminator(joined), labels)
            update(loss, of_discriminator)
            with cast:
                fooled = discriminator(generator(torch.randn_like(noise)))
                wanted = loss_of(fooled, torch.zeros_like(fooled))
            update(wanted, of_generator)
            return float(loss + wanted)

        return adversarial

    gpt = isinstance(size, Gpt)
    model: Any = torch_models.GptModel(size) if gpt else torch_models.resnet(size)  # type: ignore[arg-type]
    model = wrap(model.to(device) if gpt else model.to(device, memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step() -> float:
        given, target = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
        with cast:
            logits = model(given if gpt else given.permute(0, 3, 1, 2))
            loss = functional.cross_entropy(logits.flatten(0, -2).float(), target.flatten())
        update(loss, optimizer)
        return float(loss)

    return step


def jax_step(size: Size, precision: str, device: str) -> Step:
    """Keras on JAX, whose `train_on_batch` is one jitted function."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = device
    import keras

    from benchmarks.gpu import keras_models

    if isinstance(size, Dcgan):
        raise NotImplementedError("Keras on JAX has no train_on_batch for two models in turns")
    if precision != "float32":
        keras.mixed_precision.set_dtype_policy(f"mixed_{precision}")
    x, y = batch_of(size)
    gpt = isinstance(size, Gpt)
    model: Any = keras_models.gpt(keras, size) if gpt else keras_models.resnet(keras, size)  # type: ignore[arg-type]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss)
    return lambda: float(model.train_on_batch(x, y))


FRAMEWORKS: dict[str, Callable[[Size, str, str], Step]] = {
    "onnxtape": onnxtape_step,
    "torch": lambda *given: torch_step(*given, compiled=False),
    "torch.compile": lambda *given: torch_step(*given, compiled=True),
    "jax": jax_step,
}
