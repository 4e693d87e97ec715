"""The models as Keras and onnxtape spell them alike."""

from typing import Any

from benchmarks.gpu.sizes import Dcgan, Gpt, Resnet


def gpt(keras: Any, size: Gpt) -> Any:
    """Logits (batch, length, vocabulary) of token numbers (batch, length)."""
    layers = keras.layers

    class Embedded(layers.Layer):  # type: ignore[misc]
        """A vector for each token, and one for its place."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens = layers.Embedding(size.vocabulary, size.width)
            self.places = layers.Embedding(size.length, size.width)

        def call(self, inputs: Any) -> Any:
            return self.tokens(inputs) + self.places(keras.ops.arange(size.length, dtype="int32"))

    inputs = keras.Input((size.length,), dtype="int64")
    x = Embedded()(inputs)
    for _ in range(size.layers):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        attention = layers.MultiHeadAttention(size.heads, size.width // size.heads)
        x = x + attention(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.Dense(size.width)(layers.Dense(4 * size.width, activation="gelu")(y))
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    return keras.Model(inputs, layers.Dense(size.vocabulary)(x))


def resnet(keras: Any, size: Resnet) -> Any:
    """Logits (batch, classes) of images (batch, pixels, pixels, 3)."""
    layers = keras.layers

    def convolved(x: Any, width: int, kernel: int, stride: int = 1) -> Any:
        x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    def block(x: Any, width: int, stride: int) -> Any:
        y = layers.Activation("relu")(convolved(x, width, 1))
        y = layers.Activation("relu")(convolved(y, width, 3, stride))
        y = convolved(y, 4 * width, 1)
        if stride != 1 or x.shape[-1] != 4 * width:
            x = convolved(x, 4 * width, 1, stride)
        return layers.Activation("relu")(x + y)

    inputs = keras.Input((size.pixels, size.pixels, 3))
    x = layers.Activation("relu")(convolved(inputs, size.width, 7, 2))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, blocks in enumerate(size.blocks):
        for i in range(blocks):
            x = block(x, size.width * 2**stage, 2 if stage and i == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(size.classes)(x))


def dcgan(keras: Any, size: Dcgan) -> tuple[Any, Any]:
    """The generator, (batch, latent) to images, and the discriminator, images to (batch, 1)."""
    layers = keras.layers
    leaky = {"negative_slope": 0.2}
    generator = keras.Sequential(
        [
            keras.Input((size.latent,)),
            layers.Dense(7 * 7 * size.width),
            layers.LeakyReLU(**leaky),
            layers.Reshape((7, 7, size.width)),
            layers.Conv2DTranspose(size.width, 4, 2, padding="same"),
            layers.LeakyReLU(**leaky),
            layers.Conv2DTranspose(size.width, 4, 2, padding="same"),
            layers.LeakyReLU(**leaky),
            layers.Conv2D(1, 7, padding="same", activation="sigmoid"),
        ]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(size.width // 2, 3, 2, padding="same"),
            layers.LeakyReLU(**leaky),
            layers.Conv2D(size.width, 3, 2, padding="same"),
            layers.LeakyReLU(**leaky),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ]
    )
    return generator, discriminator
