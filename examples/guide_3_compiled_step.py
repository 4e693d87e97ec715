"""Keras's guide "Writing a training loop from scratch", 3: speeding up the step with `ot.function`.

The decorator turns the whole step - forward pass, gradients, Adam, metric - into one ONNX graph,
traced when it is first called. The first epoch runs without it, to see what it brings.

    python examples/guide_3_compiled_step.py                     scikit-learn's digits
    python examples/guide_3_compiled_step.py --data mnist.npz    MNIST, in Keras's file
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

batch_size = 32
(x_train, y_train), _ = load_data(options.data)
x_train = np.reshape(x_train, (-1, 784)).astype("float32") / 255.0
held_out = len(x_train) // 6
train_dataset = ot.data.Dataset.from_tensor_slices((x_train[:-held_out], y_train[:-held_out]))
train_dataset = train_dataset.shuffle(buffer_size=1024).batch(batch_size)
val_dataset = ot.data.Dataset.from_tensor_slices((x_train[-held_out:], y_train[-held_out:]))
val_dataset = val_dataset.batch(batch_size)


@ot.function
def train_step(x, y):
    with ot.GradientTape() as tape:
        logits = model(x, training=True)
        loss_value = loss_fn(y, logits)
    grads = tape.gradient(loss_value, model.trainable_weights)
    optimizer.apply(grads, model.trainable_weights)
    train_acc_metric.update_state(y, logits)
    return loss_value


@ot.function
def test_step(x, y):
    val_logits = model(x, training=False)
    val_acc_metric.update_state(y, val_logits)


milliseconds = {"eager": [], "compiled": []}
for epoch in range(options.epochs):
    way = "eager" if epoch == 0 else "compiled"
    print(f"\nStart of epoch {epoch}, {way}")
    ot.run_functions_eagerly(way == "eager")
    start_time = time.time()

    for step, (x_batch_train, y_batch_train) in enumerate(train_dataset):
        if step == options.steps:
            break
        step_start = time.perf_counter()
        loss_value = train_step(x_batch_train, y_batch_train)
        milliseconds[way].append(1000 * (time.perf_counter() - step_start))

        if step % 20 == 0:
            print(f"Training loss (for 1 batch) at step {step}: {float(loss_value):.4f}")

    print(f"Training acc over epoch: {float(train_acc_metric.result()):.4f}")
    train_acc_metric.reset_state()

    for x_batch_val, y_batch_val in val_dataset:
        test_step(x_batch_val, y_batch_val)
    print(f"Validation acc: {float(val_acc_metric.result()):.4f}")
    val_acc_metric.reset_state()
    print(f"Time taken: {time.time() - start_time:.2f}s")

if options.epochs > 1:
    # The median leaves out the calls that trace: the first, and that of the smaller last batch.
    eager, compiled = (np.median(times) for times in milliseconds.values())
    print(f"\nA step takes {eager:.2f} ms eagerly, {compiled:.2f} ms compiled:")
    print(f"{eager / compiled:.0f} times as fast. Traced {train_step.trace_count} times.")
