"""Keras's guide "Writing a training loop from scratch", 2: low-level handling of metrics.

A metric keeps its sums in variables: `update_state` after each batch, `result` when one wants to
see it, `reset_state` before the next epoch. One watches the training, another the validation.

    python examples/guide_2_metrics.py                     scikit-learn's digits
    python examples/guide_2_metrics.py --data mnist.npz    MNIST, in Keras's file
"""

import time

import numpy as np
from shared import load_data, parse_options

import onnxtape as ot
from onnxtape import layers

options = parse_options(__doc__, epochs=3)
ot.set_seed(options.seed)

inputs = ot.Input(shape=(784,), name="digits")
x = layers.Dense(64, activation="relu")(inputs)
x = layers.Dense(64, activation="relu")(x)
outputs = layers.Dense(10, name="predictions")(x)
model = ot.Model(inputs=inputs, outputs=outputs)

optimizer = ot.optimizers.Adam(learning_rate=1e-3)
loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
train_acc_metric = ot.metrics.SparseCategoricalAccuracy()
val_acc_metric = ot.metrics.SparseCategoricalAccuracy()

# The last sixth is held out for validation.
batch_size = 32
(x_train, y_train), _ = load_data(options.data)
x_train = np.reshape(x_train, (-1, 784)).astype("float32") / 255.0
held_out = len(x_train) // 6
train_dataset = ot.data.Dataset.from_tensor_slices((x_train[:-held_out], y_train[:-held_out]))
train_dataset = train_dataset.shuffle(buffer_size=1024).batch(batch_size)
val_dataset = ot.data.Dataset.from_tensor_slices((x_train[-held_out:], y_train[-held_out:]))
val_dataset = val_dataset.batch(batch_size)

for epoch in range(options.epochs):
    print(f"\nStart of epoch {epoch}")
    start_time = time.time()

    for step, (x_batch_train, y_batch_train) in enumerate(train_dataset):
        if step == options.steps:
            break
        with ot.GradientTape() as tape:
            logits = model(x_batch_train, training=True)
            loss_value = loss_fn(y_batch_train, logits)
        grads = tape.gradient(loss_value, model.trainable_weights)
        optimizer.apply(grads, model.trainable_weights)
        train_acc_metric.update_state(y_batch_train, logits)

        if step % 20 == 0:
            print(f"Training loss (for 1 batch) at step {step}: {float(loss_value):.4f}")

    print(f"Training acc over epoch: {float(train_acc_metric.result()):.4f}")
    train_acc_metric.reset_state()

    for x_batch_val, y_batch_val in val_dataset:
        val_logits = model(x_batch_val, training=False)
        val_acc_metric.update_state(y_batch_val, val_logits)
    print(f"Validation acc: {float(val_acc_metric.result()):.4f}")
    val_acc_metric.reset_state()
    print(f"Time taken: {time.time() - start_time:.2f}s")
