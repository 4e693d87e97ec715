"""Large batches on little memory: gradients added up and clipped by hand, over two steps.

One compiled step adds a small batch's gradients to variables; another, run after every fourth,
clips their sum, applies it and sets it back to zero. (`Adam(gradient_accumulation_steps=4,
global_clipnorm=1.0)` does the same without a word; this is for who wants something else.) At the
end the weights are compared with those of training on batches that are four times as large: they
are the same but for rounding, as long as the loss is a mean over samples.

    python examples/accumulation.py                     scikit-learn's digits
    python examples/accumulation.py --data mnist.npz    MNIST, in Keras's file
"""

import numpy as np
from shared import load_data, parse_options

import onnxtape as ot
from onnxtape import layers, ops

small, parts, limit = 32, 4, 1.0
loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_model(seed):
    ot.set_seed(seed)
    return ot.Sequential([ot.Input((784,)), layers.Dense(64, activation="relu"), layers.Dense(10)])


def clipped(gradients):
    """The gradients, scaled down together where their common norm is above the limit."""
    norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g in gradients))
    factor = limit / ops.maximum(norm, limit)
    return [g * factor for g in gradients], norm


def by_parts(model):
    """A step that adds gradients up, and one that applies them."""
    weights = model.trainable_variables
    optimizer = ot.optimizers.SGD(0.1, momentum=0.9)
    sums = [ot.Variable(ops.zeros(w.shape), trainable=False) for w in weights]
    total = ot.Variable(0.0, trainable=False)

    @ot.function
    def accumulate(x, y):
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        for kept, gradient in zip(sums, tape.gradient(loss, weights), strict=True):
            kept.assign_add(gradient / parts)
        total.assign_add(loss / parts)

    @ot.function
    def apply():
        gradients, norm = clipped([kept.value for kept in sums])
        optimizer.apply(gradients, weights)
        loss = total.value
        for kept in (*sums, total):
            kept.assign(ops.zeros_like(kept))
        return loss, norm

    return accumulate, apply


def at_once(model):
    """The same step on whole batches."""
    weights = model.trainable_variables
    optimizer = ot.optimizers.SGD(0.1, momentum=0.9)

    @ot.function
    def step(x, y):
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients, _ = clipped(tape.gradient(loss, weights))
        optimizer.apply(gradients, weights)

    return step


def main():
    options = parse_options(__doc__, epochs=3)
    (x, y), (x_test, y_test) = load_data(options.data)
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x, x_test))
    model, other = make_model(options.seed), make_model(options.seed)
    accumulate, apply = by_parts(model)
    step = at_once(other)
    whole = small * parts
    steps = min(len(x) // whole, options.steps or len(x))

    for epoch in range(options.epochs):
        order = np.random.default_rng(epoch).permutation(len(x))
        losses, norms = [], []
        for i in range(steps):
            rows = order[i * whole : (i + 1) * whole]
            for part in rows.reshape(parts, small):
                accumulate(x[part], y[part])
            loss, norm = apply()
            losses.append(float(loss))
            norms.append(float(norm))
            step(x[rows], y[rows])
        cut = sum(norm > limit for norm in norms)
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}, {cut} of {steps} steps clipped")

    accuracy = np.mean(model(x_test).numpy().argmax(1) == y_test)
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    difference = max(np.abs(a - b).max() for a, b in pairs)
    print(f"test accuracy {accuracy:.3f}; largest difference of a weight {difference:.1e}")


if __name__ == "__main__":
    main()
