"""Scaling the loss, so that gradients in float16 neither vanish nor overflow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from onnxtape import context
from onnxtape.engine import B
from onnxtape.lookup import Configurable
from onnxtape.optimizers.conditional import assign_if
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.pairs import given_or_known
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class LossScaleOptimizer(Optimizer):
    """Another optimizer, on gradients of a loss that is scaled by as much as float16 bears.

    `scale_loss` multiplies the loss by the scale, and `apply` divides the gradients by it again.
    Where a gradient holds an infinity or a NaN, the step is left out (nothing of the inner
    optimizer's changes) and the scale is halved; after `dynamic_growth_steps` steps without one it
    is doubled. All of that is part of the compiled step.

        optimizer = ot.optimizers.LossScaleOptimizer(ot.optimizers.Adam())
        with ot.GradientTape() as tape:
            loss = optimizer.scale_loss(loss_of(y, model(x)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    Args:
        inner_optimizer: what updates the variables. Clipping, weight decay, averages and
            accumulation are its own.
        initial_scale: the scale of the first step. One that is too high is lowered soon.
        dynamic_growth_steps: after so many steps the scale is doubled.

    Attributes:
        dynamic_scale: the scale, a float32 variable.
        step_counter: the steps since the scale changed, an int64 variable.
    """

    # The learning rate is the inner one's.
    __repr__ = Configurable.__repr__

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        *,
        dynamic: bool = True,
        **kwargs: Any,
    ) -> None:
        if not dynamic:
            raise ValueError(
                "LossScaleOptimizer has no dynamic=False: set loss_scale_factor on the inner "
                "optimizer instead"
            )
        if wrong := [key for key, value in kwargs.items() if value not in (None, False)]:
            raise ValueError(
                f"LossScaleOptimizer does not take {wrong[0]}: give it to the inner optimizer"
            )
        if not isinstance(inner_optimizer, Optimizer):
            raise TypeError(
                f"LossScaleOptimizer wraps an optimizer, not {type(inner_optimizer).__name__}"
            )
        super().__init__(0.0, name=name)
        self.inner_optimizer = inner_optimizer
        inner_optimizer.loss_scale_factor = None
        self.initial_scale = float(initial_scale)
        self.dynamic_growth_steps = int(dynamic_growth_steps)
        self.step_counter = self.add_variable((), 0, "int64", "step_counter")
        self.dynamic_scale = self.add_variable((), self.initial_scale, name="dynamic_scale")

    @property
    def variables(self) -> list[Variable]:
        """Its own, then the inner optimizer's."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        """How many updates the inner optimizer has made: skipped steps do not count."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's; it can be assigned."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    def build(self, variables: Sequence[Variable]) -> None:
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        super().build(variables)

    def scale_loss(self, loss: Any) -> Any:
        """The loss times the scale, whose gradients `apply` scales back."""
        return loss * self.dynamic_scale.value

    def apply(
        self, grads: Iterable[Any], trainable_variables: Iterable[Variable] | None = None
    ) -> None:
        """Divide the gradients by the scale and apply them, if they are all finite; see
        `Optimizer.apply`."""
        gradients = list(grads)
        known = self._trainable if self.built else None
        variables = given_or_known(gradients, trainable_variables, known)
        if not self.built:
            with context.in_layer(self.name):
                self.build(variables)
        with context.in_phase("update"), context.in_layer(self.name):
            finite = _all_finite([g for g in gradients if g is not None])
            factor = B.op("Reciprocal", self.dynamic_scale.value)
            unscaled = [
                None if g is None else B.op("Mul", g, B.cast(factor, g.dtype)) for g in gradients
            ]
            self._next_scale(finite)
        assign_if(
            finite,
            [*variables, *self.inner_optimizer.variables],
            lambda: self.inner_optimizer.apply(unscaled, variables),
        )

    def _next_scale(self, finite: Tensor) -> None:
        count = B.op("Add", self.step_counter.value, 1)
        full = B.op("Equal", count, self.dynamic_growth_steps)
        goes_on = B.op("And", finite, B.op("Not", full))
        self.step_counter.assign(B.op("Where", goes_on, count, 0))
        scale = self.dynamic_scale.value
        grown = B.op("Where", full, B.op("Mul", scale, 2.0), scale)
        self.dynamic_scale.assign(B.op("Where", finite, grown, B.op("Mul", scale, 0.5)))

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        inner = self.inner_optimizer
        return {
            "name": self.name,
            "inner_optimizer": {"class_name": type(inner).__name__, "config": inner.get_config()},
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        from onnxtape import optimizers

        config = dict(config)
        return cls(optimizers.get(config.pop("inner_optimizer")), **config)


def _all_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether no gradient holds an infinity or a NaN: a scalar of booleans.

    Times zero, both give a NaN, which no sum loses; comparisons of every element would cost more.
    """
    sums = [B.op("ReduceSum", B.op("Mul", g, 0.0), keepdims=0) for g in gradients]
    sums = [B.cast(s, sums[0].dtype) for s in sums]
    add: Callable[[Tensor, Tensor], Tensor] = functools.partial(B.op, "Add")
    return B.op("Equal", functools.reduce(add, sums), 0.0)
