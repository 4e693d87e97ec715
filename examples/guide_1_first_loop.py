"""Keras's guide "Writing a training loop from scratch", 1: a first end-to-end example.

A tape watches the forward pass, goes back through it for the gradients, and an optimizer applies
them. Everything runs at once, line by line, so that one can print and look into anything.

    python examples/guide_1_first_loop.py                     scikit-learn's digits
    python examples/guide_1_first_loop.py --data mnist.npz    MNIST, in Keras's file
"""

import numpy as np
from shared import load_data, parse_options

import onnxtape as ot
from onnxtape import layers

options = parse_options(__doc__, epochs=3)
ot.set_seed(options.seed)


def get_model():
    inputs = ot.Input(shape=(784,), name="digits")
    x1 = layers.Dense(64, activation="relu")(inputs)
    x2 = layers.Dense(64, activation="relu")(x1)
    outputs = layers.Dense(10, name="predictions")(x2)
    return ot.Model(inputs=inputs, outputs=outputs)


model = get_model()
optimizer = ot.optimizers.Adam(learning_rate=1e-3)
loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)

batch_size = 32
(x_train, y_train), _ = load_data(options.data)
x_train = np.reshape(x_train, (-1, 784)).astype("float32") / 255.0
train_dataset = ot.data.Dataset.from_tensor_slices((x_train, y_train))
train_dataset = train_dataset.shuffle(buffer_size=1024).batch(batch_size)

for epoch in range(options.epochs):
    print(f"\nStart of epoch {epoch}")

    for step, (x_batch_train, y_batch_train) in enumerate(train_dataset):
        if step == options.steps:
            break
        # Operations in this block are recorded on the tape.
        with ot.GradientTape() as tape:
            logits = model(x_batch_train, training=True)
            loss_value = loss_fn(y_batch_train, logits)

        # Outside of it, the gradients of the loss with respect to the weights ...
        grads = tape.gradient(loss_value, model.trainable_weights)
        # ... and one step of gradient descent, which makes the loss smaller.
        optimizer.apply(grads, model.trainable_weights)

        if step % 20 == 0:
            print(f"Training loss (for 1 batch) at step {step}: {float(loss_value):.4f}")
            print(f"Seen so far: {step * batch_size + len(x_batch_train)} samples")
