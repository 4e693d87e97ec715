"""A Wasserstein GAN with gradient penalty: a gradient inside a gradient, in one compiled step.

The critic's slope, its gradient by its input, is held near 1 by a penalty; training differentiates
that penalty once more, by the critic's weights. One tape inside another says so, and the second
derivatives become plain ONNX operators like everything else. The critic learns three times for each
time that the generator does, in a Python loop that the trace writes out.

Gulrajani and others, "Improved Training of Wasserstein GANs" (arXiv:1704.00028).

    python examples/wgan_gp.py                     scikit-learn's digits
    python examples/wgan_gp.py --data mnist.npz    MNIST, in Keras's file
"""

import numpy as np
from shared import load_data, parse_options, progress, save_grid

import onnxtape as ot
from onnxtape import layers, ops

latent_dim = 64
critic_steps = 3
penalty_weight = 10.0


def make_critic():
    # No batch normalization: the penalty is on each image's own slope.
    return ot.Sequential(
        [
            ot.Input(shape=(28, 28, 1)),
            layers.Conv2D(32, 5, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(64, 5, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Flatten(),
            layers.Dense(1),
        ],
        name="critic",
    )


def make_generator():
    return ot.Sequential(
        [
            ot.Input(shape=(latent_dim,)),
            layers.Dense(7 * 7 * 64, activation="relu"),
            layers.Reshape((7, 7, 64)),
            layers.Conv2DTranspose(32, 4, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )


def gradient_penalty(critic, real_images, fake_images):
    """The mean square by which the slope differs from 1, between real and fake images."""
    share = ot.random.uniform((ops.shape(real_images)[0], 1, 1, 1))
    mixed = real_images + share * (fake_images - real_images)
    with ot.GradientTape() as tape:
        tape.watch(mixed)
        scores = critic(mixed)
    slopes = tape.gradient(scores, mixed)
    # A root has no derivative at 0.
    norms = ops.sqrt(ops.sum(ops.square(slopes), axis=(1, 2, 3)) + 1e-12)
    return ops.mean(ops.square(norms - 1.0))


def main():
    options = parse_options(__doc__, epochs=60)
    ot.set_seed(options.seed)
    (x_train, _), (x_test, _) = load_data(options.data)
    images = np.concatenate([x_train, x_test])[..., None].astype("float32") / 255
    dataset = ot.data.Dataset.from_tensor_slices(images).shuffle(len(images)).batch(64)
    critic, generator = make_critic(), make_generator()
    critic_optimizer = ot.optimizers.Adam(learning_rate=5e-4, beta_1=0.5, beta_2=0.9)
    generator_optimizer = ot.optimizers.Adam(learning_rate=5e-4, beta_1=0.5, beta_2=0.9)

    @ot.function(input_signature=[ot.TensorSpec((None, 28, 28, 1), "float32")])
    def train_step(real_images):
        latent_shape = (ops.shape(real_images)[0], latent_dim)
        for _ in range(critic_steps):
            fake_images = generator(ot.random.normal(latent_shape))
            with ot.GradientTape() as tape:
                difference = ops.mean(critic(fake_images)) - ops.mean(critic(real_images))
                penalty = gradient_penalty(critic, real_images, fake_images)
                loss = difference + penalty_weight * penalty
            gradients = tape.gradient(loss, critic.trainable_weights)
            critic_optimizer.apply(gradients, critic.trainable_weights)
        with ot.GradientTape() as tape:
            score = ops.mean(critic(generator(ot.random.normal(latent_shape))))
            generator_loss = -score
        gradients = tape.gradient(generator_loss, generator.trainable_weights)
        generator_optimizer.apply(gradients, generator.trainable_weights)
        return {"loss": loss, "distance": -difference, "penalty": penalty}

    fixed_latents = ot.random.normal((64, latent_dim))
    for epoch in range(options.epochs):
        batches = dataset.take(options.steps or len(dataset))
        results = [train_step(real) for real in progress(batches, f"epoch {epoch}")]
        loss, distance, penalty = (
            np.mean([float(result[name]) for result in results])
            for name in ("loss", "distance", "penalty")
        )
        print(
            f"epoch {epoch}: critic's loss {loss:.3f}, distance of real and fake {distance:.3f}, "
            f"penalty {penalty:.4f}",
            flush=True,
        )
        save_grid(options.folder / "wgan_gp.png", generator(fixed_latents).numpy())
    print(f"{options.folder / 'wgan_gp.png'}: generated digits")


if __name__ == "__main__":
    main()
