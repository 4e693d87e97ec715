"""A layer of one's own that learns by watching: vector quantization with moving averages.

An autoencoder whose middle may say one of 64 words only. The words ("codes") are no parameters that
gradients train: they are state, which the layer moves to the average of what was rounded to them.
One learns here how a layer keeps such state (`add_weight(trainable=False)`, `assign`), behaves
differently in training, adds a loss, and lets gradients pass by what has none. In the compiled step
the state changes in place like all other state, and it is saved with the weights.

van den Oord and others, "Neural Discrete Representation Learning" (arXiv:1711.00937), appendix A.1.

    python examples/custom_layer.py                     scikit-learn's digits
    python examples/custom_layer.py --data mnist.npz    MNIST, in Keras's file
"""

import numpy as np
from shared import load_data, parse_options, progress, save_grid

import onnxtape as ot
from onnxtape import layers, ops


class VectorQuantizer(layers.Layer):
    """Each vector (..., size) replaced by the nearest of `codes` vectors.

    Args:
        codes: how many there are.
        decay: what the moving averages keep at each step.
        commitment: the factor of the loss that keeps the inputs near their codes.
    """

    def __init__(self, codes=64, decay=0.95, commitment=0.25, **kwargs):
        super().__init__(**kwargs)
        self.codes, self.decay, self.commitment = codes, decay, commitment

    def build(self, input_shape):
        size = input_shape[-1]
        self.codebook = self.add_weight(
            shape=(self.codes, size), initializer="random_normal", trainable=False, name="codebook"
        )
        self.counts = self.add_weight(
            shape=(self.codes, 1), initializer="ones", trainable=False, name="counts"
        )
        # The codes are the quotients of these sums and the counts.
        self.sums = self.add_weight(
            shape=(self.codes, size),
            initializer=lambda shape, dtype: self.codebook.value,
            trainable=False,
            name="sums",
        )

    def call(self, inputs, training=False):
        flat = ops.reshape(inputs, (-1, self.codebook.shape[1]))
        nearest = ops.argmin(self._distances(flat), axis=1)
        chosen = ops.reshape(ops.take(self.codebook, nearest, axis=0), ops.shape(inputs))
        if training:
            self._watch(ops.stop_gradient(flat), ops.one_hot(nearest, self.codes))
        self.add_loss(self.commitment * ops.mean(ops.square(inputs - ops.stop_gradient(chosen))))
        # Straight through: the value of the code, and the gradient of the input.
        return inputs + ops.stop_gradient(chosen - inputs)

    def _distances(self, flat):
        """Squared, up to what is the same for all codes: (vectors, codes)."""
        codes = self.codebook.value
        return ops.sum(ops.square(codes), axis=1) - 2 * ops.matmul(flat, ops.transpose(codes))

    def _watch(self, flat, one_hot):
        """Move the counts, the sums and so the codes towards this batch's."""
        fresh = 1 - self.decay
        counts = ops.expand_dims(ops.sum(one_hot, axis=0), 1)
        self.counts.assign(self.decay * self.counts + fresh * counts)
        self.sums.assign(self.decay * self.sums + fresh * ops.matmul(ops.transpose(one_hot), flat))
        self.codebook.assign(self.sums / ops.maximum(self.counts, 1e-2))


def make_model(size=8):
    """Digits of 28x28 pixels by way of 7x7 codes."""
    quantizer = VectorQuantizer(name="quantizer")
    inputs = ot.Input(shape=(28, 28, 1))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    x = quantizer(layers.Conv2D(size, 1)(x))
    x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    outputs = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
    return ot.Model(inputs, outputs, name="quantized"), quantizer


def main():
    options = parse_options(__doc__, epochs=15)
    ot.set_seed(options.seed)
    (x_train, _), (x_test, _) = load_data(options.data)
    x_train, x_test = (x[..., None].astype("float32") / 255 for x in (x_train, x_test))
    dataset = ot.data.Dataset.from_tensor_slices(x_train).shuffle(len(x_train)).batch(32)
    model, quantizer = make_model()
    optimizer = ot.optimizers.Adam(2e-3)
    mean_loss = ot.metrics.Mean()

    @ot.function(input_signature=[ot.TensorSpec((None, 28, 28, 1), "float32")])
    def train_step(images):
        with ot.GradientTape() as tape:
            error = ops.mean(ops.square(images - model(images, training=True)))
            loss = error + sum(model.losses)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        mean_loss.update_state(error)

    for epoch in range(options.epochs):
        mean_loss.reset_state()
        for images in progress(dataset.take(options.steps or len(dataset)), f"epoch {epoch}"):
            train_step(images)
        used = int(np.sum(quantizer.counts.numpy() > 0.1))
        print(
            f"epoch {epoch}: loss {float(mean_loss.result()):.4f}, {used} codes in use", flush=True
        )

    picture = options.folder / "custom_layer.png"
    shown = x_test[:32]
    rows = np.stack([shown.reshape(4, 8, 28, 28, 1), model(shown).numpy().reshape(4, 8, 28, 28, 1)])
    save_grid(picture, rows.swapaxes(0, 1).reshape(64, 28, 28, 1))
    print(f"{picture}: test digits, and below each row what 49 codes keep of them")


if __name__ == "__main__":
    main()
