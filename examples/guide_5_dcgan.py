"""Keras's guide "Writing a training loop from scratch", 5: a GAN training loop.

A generator makes images of noise, a discriminator tells them from real ones, and each learns from
the other. Two models, two tapes, two optimizers and the random numbers are one compiled step, whose
graph serves every batch size. A picture of generated digits is written after each epoch.

Blots come first, strokes after some hundred steps. On 10,000 of MNIST's digits, 157 steps an epoch,
strokes were like those of digits after ten epochs, and twos, threes and eights could be read after
twenty; in between, for an epoch, they fell apart again.

    python examples/guide_5_dcgan.py                     scikit-learn's digits
    python examples/guide_5_dcgan.py --data mnist.npz    MNIST, in Keras's file
"""

import time

import numpy as np
from shared import load_data, parse_options, save_grid

import onnxtape as ot
from onnxtape import layers, ops

options = parse_options(__doc__, epochs=20)
ot.set_seed(options.seed)

discriminator = ot.Sequential(
    [
        ot.Input(shape=(28, 28, 1)),
        layers.Conv2D(64, (3, 3), strides=(2, 2), padding="same"),
        layers.LeakyReLU(negative_slope=0.2),
        layers.Conv2D(128, (3, 3), strides=(2, 2), padding="same"),
        layers.LeakyReLU(negative_slope=0.2),
        layers.GlobalMaxPooling2D(),
        layers.Dense(1),
    ],
    name="discriminator",
)
discriminator.summary()

latent_dim = 128
generator = ot.Sequential(
    [
        ot.Input(shape=(latent_dim,)),
        # 128 numbers for each place of a 7x7 map.
        layers.Dense(7 * 7 * 128),
        layers.LeakyReLU(negative_slope=0.2),
        layers.Reshape((7, 7, 128)),
        layers.Conv2DTranspose(128, (4, 4), strides=(2, 2), padding="same"),
        layers.LeakyReLU(negative_slope=0.2),
        layers.Conv2DTranspose(128, (4, 4), strides=(2, 2), padding="same"),
        layers.LeakyReLU(negative_slope=0.2),
        layers.Conv2D(1, (7, 7), padding="same", activation="sigmoid"),
    ],
    name="generator",
)
generator.summary()

d_optimizer = ot.optimizers.Adam(learning_rate=0.0003)
g_optimizer = ot.optimizers.Adam(learning_rate=0.0004)
loss_fn = ot.losses.BinaryCrossentropy(from_logits=True)


# None stands for batches of any size.
@ot.function(input_signature=[ot.TensorSpec((None, 28, 28, 1), "float32")])
def train_step(real_images):
    batch_size = ops.shape(real_images)[0]
    # Fake images from random points in the latent space, put before the real ones.
    random_latent_vectors = ot.random.normal(shape=(batch_size, latent_dim))
    generated_images = generator(random_latent_vectors)
    combined_images = ops.concatenate([generated_images, real_images], axis=0)

    # 1 is for fake, 0 for real. The noise on the labels is an important trick.
    labels = ops.concatenate([ops.ones((batch_size, 1)), ops.zeros((batch_size, 1))], axis=0)
    labels += 0.05 * ot.random.uniform(ops.shape(labels))

    # Train the discriminator.
    with ot.GradientTape() as tape:
        predictions = discriminator(combined_images)
        d_loss = loss_fn(labels, predictions)
    grads = tape.gradient(d_loss, discriminator.trainable_weights)
    d_optimizer.apply(grads, discriminator.trainable_weights)

    # Other points, with labels that say "all real".
    random_latent_vectors = ot.random.normal(shape=(batch_size, latent_dim))
    misleading_labels = ops.zeros((batch_size, 1))

    # Train the generator; the discriminator's weights stay as they are.
    with ot.GradientTape() as tape:
        predictions = discriminator(generator(random_latent_vectors))
        g_loss = loss_fn(misleading_labels, predictions)
    grads = tape.gradient(g_loss, generator.trainable_weights)
    g_optimizer.apply(grads, generator.trainable_weights)
    return d_loss, g_loss, generated_images


# Training and test digits alike: there is nothing to test.
batch_size = 64
(x_train, _), (x_test, _) = load_data(options.data)
all_digits = np.concatenate([x_train, x_test]).astype("float32") / 255.0
all_digits = np.reshape(all_digits, (-1, 28, 28, 1))
dataset = ot.data.Dataset.from_tensor_slices(all_digits)
dataset = dataset.shuffle(buffer_size=1024).batch(batch_size)

# The same points after each epoch, to see how their digits form.
fixed_latent_vectors = ot.random.normal(shape=(64, latent_dim))

for epoch in range(options.epochs):
    print(f"\nStart epoch {epoch}", flush=True)
    start_time, seen = time.time(), 0

    for step, real_images in enumerate(dataset):
        if step == options.steps:
            break
        d_loss, g_loss, generated_images = train_step(real_images)
        seen += 1

        if step % 20 == 0:
            print(f"discriminator loss at step {step}: {float(d_loss):.2f}")
            print(f"adversarial loss at step {step}: {float(g_loss):.2f}", flush=True)

    picture = options.folder / f"dcgan_epoch_{epoch:02}.png"
    save_grid(picture, generator(fixed_latent_vectors).numpy())
    print(f"{picture}: generated digits; {1000 * (time.time() - start_time) / seen:.0f} ms a step")
