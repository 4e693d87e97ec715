"""A variational autoencoder: digits squeezed into two numbers, and drawn from them again.

One learns here how a layer draws random numbers from a stream of its own, how it adds a loss (the
Kullback-Leibler divergence), and how two models are trained as one. The picture shows what the
decoder draws all over the plane, and where the encoder puts the test digits.

    python examples/vae.py                     scikit-learn's digits
    python examples/vae.py --data mnist.npz    MNIST, in Keras's file
"""

import numpy as np
from shared import load_data, parse_options, progress

import onnxtape as ot
from onnxtape import layers, ops

latent_dim = 2


class Sampling(layers.Layer):
    """Points from the normal distribution that the encoder gives by mean and logarithm of variance.

    Its distance from the standard normal distribution is added to the losses: Kingma and Welling,
    "Auto-Encoding Variational Bayes" (arXiv:1312.6114), appendix B.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = ot.random.SeedGenerator(1337)

    def call(self, inputs):
        z_mean, z_log_var = inputs
        kl = -0.5 * (1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var))
        self.add_loss(ops.mean(ops.sum(kl, axis=1)))
        epsilon = ot.random.normal(shape=ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(0.5 * z_log_var) * epsilon


def make_encoder():
    inputs = ot.Input(shape=(28, 28, 1))
    x = layers.Conv2D(32, 3, activation="relu", strides=2, padding="same")(inputs)
    x = layers.Conv2D(64, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu")(x)
    z_mean = layers.Dense(latent_dim, name="z_mean")(x)
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(x)
    z = Sampling()([z_mean, z_log_var])
    return ot.Model(inputs, [z_mean, z_log_var, z], name="encoder")


def make_decoder():
    inputs = ot.Input(shape=(latent_dim,))
    x = layers.Dense(7 * 7 * 64, activation="relu")(inputs)
    x = layers.Reshape((7, 7, 64))(x)
    x = layers.Conv2DTranspose(64, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(32, 3, activation="relu", strides=2, padding="same")(x)
    outputs = layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(x)
    return ot.Model(inputs, outputs, name="decoder")


def draw(path, encoder, decoder, images, labels):
    """The digits all over the latent plane, and the test digits' places in it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    side, reach = 15, 2.2
    places = np.linspace(-reach, reach, side, dtype="float32")
    points = np.stack(np.meshgrid(places, places[::-1]), axis=-1).reshape(-1, latent_dim)
    drawn = decoder(points).numpy().reshape(side, side, 28, 28)
    sheet = drawn.transpose(0, 2, 1, 3).reshape(side * 28, side * 28)
    left.imshow(sheet, cmap="gray", extent=(-reach, reach, -reach, reach))
    left.set(title="what the decoder draws", xlabel="z[0]", ylabel="z[1]")
    z_mean = encoder(images)[0].numpy()
    dots = right.scatter(*z_mean.T, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=8)
    right.set(title="where the encoder puts the test digits", xlabel="z[0]", ylabel="z[1]")
    figure.colorbar(dots, ax=right, ticks=range(10))
    figure.savefig(path)


def main():
    options = parse_options(__doc__, epochs=40)
    ot.set_seed(options.seed)
    (x_train, _), (x_test, y_test) = load_data(options.data)
    x_train, x_test = (x[..., None].astype("float32") / 255 for x in (x_train, x_test))
    dataset = ot.data.Dataset.from_tensor_slices(x_train).shuffle(len(x_train)).batch(64)
    encoder, decoder = make_encoder(), make_decoder()
    weights = encoder.trainable_weights + decoder.trainable_weights
    optimizer = ot.optimizers.Adam(learning_rate=1e-3)
    reconstruction_tracker = ot.metrics.Mean(name="reconstruction_loss")
    kl_tracker = ot.metrics.Mean(name="kl_loss")

    @ot.function(input_signature=[ot.TensorSpec((None, 28, 28, 1), "float32")])
    def train_step(images):
        with ot.GradientTape() as tape:
            _, _, z = encoder(images)
            errors = ot.losses.binary_crossentropy(images, decoder(z))
            reconstruction_loss = ops.mean(ops.sum(errors, axis=(1, 2)))
            kl_loss = sum(encoder.losses)
            loss = reconstruction_loss + kl_loss
        optimizer.apply(tape.gradient(loss, weights), weights)
        reconstruction_tracker.update_state(reconstruction_loss)
        kl_tracker.update_state(kl_loss)

    for epoch in range(options.epochs):
        reconstruction_tracker.reset_state()
        kl_tracker.reset_state()
        batches = dataset.take(options.steps or len(dataset))
        for images in progress(batches, f"epoch {epoch}"):
            train_step(images)
        reconstruction, kl = reconstruction_tracker.result(), kl_tracker.result()
        print(
            f"epoch {epoch}: loss {float(reconstruction + kl):.2f}, "
            f"of reconstruction {float(reconstruction):.2f}, of divergence {float(kl):.2f}",
            flush=True,
        )
    draw(options.folder / "vae.png", encoder, decoder, x_test[:2000], y_test[:2000])
    print(f"{options.folder / 'vae.png'}: the latent plane")


if __name__ == "__main__":
    main()
