"""A U-Net: which pixels are a disc, which a square, which a triangle?

The image goes down to a quarter of its size and up again, and on the way up each level also sees
what the one opposite knew: skip connections, by the functional API. One learns here about dense
prediction: a class for each pixel, group normalization, and the intersection over union as metric.

    python examples/unet.py
"""

import numpy as np
from shared import parse_options, progress

import onnxtape as ot
from onnxtape import layers

SIDE = 32
CLASSES = ("background", "disc", "square", "triangle")


def make_images(count, seed):
    """Noisy gray images (count, 32, 32, 1) of three shapes each, and their pixels' classes."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIDE, :SIDE]
    images = np.full((count, SIDE, SIDE), 0.3)
    masks = np.zeros((count, SIDE, SIDE), "int64")
    for image, mask in zip(images, masks, strict=True):
        for kind in rng.permutation([1, 2, 3]):
            size, (y, x) = rng.uniform(4, 8), rng.uniform(6, SIDE - 6, 2)
            down, aside = row - y, abs(column - x)
            inside = {
                1: down**2 + aside**2 < size**2,
                2: np.maximum(abs(down), aside) < 0.85 * size,
                3: (abs(down) < size) & (aside < (down + size) / 2),
            }[kind]
            image[inside], mask[inside] = rng.uniform(0.5, 1), kind
        image += rng.normal(0, 0.08, image.shape)
    return images[..., None].astype("float32"), masks


def block(x, filters):
    """Two convolutions, each normalized in groups of four channels."""
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.GroupNormalization(groups=filters // 4)(x)
        x = layers.Activation("relu")(x)
    return x


def make_model(filters=16):
    inputs = ot.Input(shape=(SIDE, SIDE, 1))
    x, skips = inputs, []
    for level in range(2):
        x = block(x, filters * 2**level)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = block(x, filters * 4)
    for level in reversed(range(2)):
        x = layers.UpSampling2D(2)(x)
        x = layers.Concatenate()([x, skips[level]])
        x = block(x, filters * 2**level)
    outputs = layers.Conv2D(len(CLASSES), 1)(x)
    return ot.Model(inputs, outputs, name="unet")


def draw(path, model, images, masks):
    """Images, what is in them, and what the model sees in them."""
    from matplotlib.figure import Figure

    predicted = model(images, training=False).numpy().argmax(axis=-1)
    figure = Figure(figsize=(1.3 * len(images), 4.2), dpi=100, layout="constrained")
    rows = {"image": images[..., 0], "truth": masks, "prediction": predicted}
    for cells, (title, pictures) in zip(figure.subplots(3, len(images)), rows.items(), strict=True):
        cells[0].set_ylabel(title)
        for cell, picture in zip(cells, pictures, strict=True):
            if title == "image":
                cell.imshow(picture, cmap="gray", vmin=0, vmax=1.2)
            else:
                cell.imshow(picture, cmap="tab10", vmin=0, vmax=10, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
    figure.savefig(path)


def main():
    options = parse_options(__doc__, epochs=8, data=False)
    ot.set_seed(options.seed)
    dataset = ot.data.Dataset.from_tensor_slices(make_images(1000, seed=1))
    dataset = dataset.shuffle(1000).batch(20)
    x_test, y_test = make_images(100, seed=2)
    model = make_model()
    model.summary()
    optimizer = ot.optimizers.Adam(learning_rate=2e-3)
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss_tracker = ot.metrics.Mean(name="loss")
    iou = ot.metrics.MeanIoU(num_classes=len(CLASSES), sparse_y_pred=False)

    @ot.function
    def train_step(x, y):
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply(gradients, model.trainable_weights)
        loss_tracker.update_state(loss)

    @ot.function
    def test_step(x, y):
        iou.update_state(y, model(x, training=False))

    for epoch in range(options.epochs):
        loss_tracker.reset_state()
        iou.reset_state()
        batches = dataset.take(options.steps or len(dataset))
        for x, y in progress(batches, f"epoch {epoch}"):
            train_step(x, y)
        test_step(x_test, y_test)
        print(
            f"epoch {epoch}: loss {float(loss_tracker.result()):.4f}, "
            f"intersection over union in the test images {float(iou.result()):.3f}",
            flush=True,
        )
    draw(options.folder / "unet.png", model, x_test[:8], y_test[:8])
    print(f"{options.folder / 'unet.png'}: what the model sees")


if __name__ == "__main__":
    main()
