"""Keras's guide "Writing a training loop from scratch", 4: losses that layers add.

A layer calls `self.add_loss(value)` in its forward pass; `model.losses` lists what was added, and
the step puts the sum on top of its loss. Here it keeps the activities of the first layer small.

    python examples/guide_4_add_loss.py                     scikit-learn's digits
    python examples/guide_4_add_loss.py --data mnist.npz    MNIST, in Keras's file
"""

import numpy as np
from shared import load_data, parse_options

import onnxtape as ot
from onnxtape import layers, ops

options = parse_options(__doc__, epochs=3)
ot.set_seed(options.seed)


class ActivityRegularizationLayer(layers.Layer):
    def call(self, inputs):
        # The sum goes over the whole batch: the guide's 1e-2 would silence every neuron.
        self.add_loss(1e-4 * ops.sum(inputs))
        return inputs


inputs = ot.Input(shape=(784,), name="digits")
x = layers.Dense(64, activation="relu")(inputs)
# Insert activity regularization as a layer.
x = ActivityRegularizationLayer()(x)
x = layers.Dense(64, activation="relu")(x)
outputs = layers.Dense(10, name="predictions")(x)
model = ot.Model(inputs=inputs, outputs=outputs)

optimizer = ot.optimizers.Adam(learning_rate=1e-3)
loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
train_acc_metric = ot.metrics.SparseCategoricalAccuracy()

batch_size = 32
(x_train, y_train), _ = load_data(options.data)
x_train = np.reshape(x_train, (-1, 784)).astype("float32") / 255.0
train_dataset = ot.data.Dataset.from_tensor_slices((x_train, y_train))
train_dataset = train_dataset.shuffle(buffer_size=1024).batch(batch_size)


@ot.function
def train_step(x, y):
    with ot.GradientTape() as tape:
        logits = model(x, training=True)
        loss_value = loss_fn(y, logits)
        # Add any extra losses created during the forward pass.
        added = sum(model.losses)
        loss_value += added
    grads = tape.gradient(loss_value, model.trainable_weights)
    optimizer.apply(grads, model.trainable_weights)
    train_acc_metric.update_state(y, logits)
    return loss_value, added


for epoch in range(options.epochs):
    print(f"\nStart of epoch {epoch}")

    for step, (x_batch_train, y_batch_train) in enumerate(train_dataset):
        if step == options.steps:
            break
        loss_value, added = train_step(x_batch_train, y_batch_train)

        if step % 20 == 0:
            print(
                f"Training loss (for 1 batch) at step {step}: {float(loss_value):.4f}, "
                f"of which the layer added {float(added):.4f}"
            )

    print(f"Training acc over epoch: {float(train_acc_metric.result()):.4f}")
    train_acc_metric.reset_state()
