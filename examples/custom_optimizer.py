"""An optimizer of one's own, tried beside the ready ones.

`Optimizer` brings the learning rate, weight decay, clipping and averaging. A subclass makes its
state in `build`, and says in `update_step` how one variable changes. It is written with the
operations that layers are written with, so it becomes part of the compiled step.

The example is Yogi: Adam, but its second moment grows no faster than the gradients say (Zaheer and
others, "Adaptive Methods for Nonconvex Optimization", 2018).

    python examples/custom_optimizer.py                     scikit-learn's digits
    python examples/custom_optimizer.py --data mnist.npz    MNIST, in Keras's file
"""

from shared import load_data, parse_options

import onnxtape as ot
from onnxtape import layers, ops


class Yogi(ot.optimizers.Optimizer):
    """v += (1 - beta_2) sign(g^2 - v) g^2, where Adam has v += (1 - beta_2) (g^2 - v)."""

    def __init__(self, learning_rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-3, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        place = self.state_index(variable)
        m, v = self.momentums[place], self.velocities[place]
        step = ops.cast(self.iterations + 1, variable.dtype)
        square = ops.square(gradient)
        m.assign_add((1 - self.beta_1) * (gradient - m))
        v.assign_add((1 - self.beta_2) * ops.sign(square - v) * square)
        unbiased_m = m / (1 - self.beta_1**step)
        unbiased_v = v / (1 - self.beta_2**step)
        variable.assign_sub(learning_rate * unbiased_m / (ops.sqrt(unbiased_v) + self.epsilon))


def main():
    options = parse_options(__doc__, epochs=5)
    (x_train, y_train), (x_test, y_test) = load_data(options.data)
    x_train, x_test = (x.reshape(-1, 784).astype("float32") / 255 for x in (x_train, x_test))

    for optimizer in (ot.optimizers.SGD(0.1), ot.optimizers.Adam(), Yogi(clipnorm=1.0)):
        ot.set_seed(options.seed)  # the same first weights for all
        model = ot.Sequential(
            [ot.Input((784,)), layers.Dense(64, activation="relu"), layers.Dense(10)]
        )
        model.compile(
            optimizer,
            ot.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        history = model.fit(
            x_train,
            y_train,
            batch_size=64,
            epochs=options.epochs,
            steps_per_epoch=options.steps,
            verbose=0,
        ).history
        _, accuracy = model.evaluate(x_test, y_test, verbose=0)
        losses = ", ".join(f"{loss:.3f}" for loss in history["loss"])
        print(f"{type(optimizer).__name__:5} loss {losses}; test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
