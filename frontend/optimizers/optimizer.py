"""The base of optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from onnxtape import context
from onnxtape.constructing import described
from onnxtape.dtypes import FLOAT32
from onnxtape.engine import B, convert_to_tensor
from onnxtape.lookup import Configurable
from onnxtape.optimizers import schedules
from onnxtape.optimizers.clipping import clipped
from onnxtape.optimizers.conditional import assign_if, every
from onnxtape.optimizers.decay import Exclusion, decay_weights
from onnxtape.optimizers.options import check_clips, check_count, check_rate, check_share
from onnxtape.optimizers.pairs import Pairs, check_pairs, given_or_known, paired
from onnxtape.optimizers.schedules import LearningRateSchedule
from onnxtape.optimizers.state import OptimizerState
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class Optimizer(OptimizerState, Configurable):
    """Updates variables by their gradients.

    Subclasses create their state in `build` with `add_optimizer_variables` and write
    `update_step(gradient, variable, learning_rate)`. Everything here happens inside the compiled
    step, without Python in between.

    Args:
        learning_rate: a number, or a `LearningRateSchedule`. A number is kept in a variable:
            assigning `optimizer.learning_rate` later never compiles anything again.
        weight_decay: each update first subtracts weight_decay * learning_rate times the variable.
        clipnorm: the largest norm of each gradient; longer ones are scaled down.
        clipvalue: the largest absolute value of a gradient's elements.
        global_clipnorm: the largest norm of all gradients together.
        use_ema: keep an exponential moving average of each variable,
            average = ema_momentum * average + (1 - ema_momentum) * variable, which starts at the
            variable's value after the first update.
        ema_momentum: between 0 and 1.
        ema_overwrite_frequency: every so many iterations the variables are set to their averages;
            by default that is left to `finalize_variable_values`.
        loss_scale_factor: gradients are divided by it; see `scale_loss`.
        gradient_accumulation_steps: variables change only at every so many calls of `apply`, by the
            mean of the gradients since. Schedules count calls, all else (`iterations`) updates.
        name: by default the class's name in snake case, counted.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        check_clips(clips)
        check_share("ema_momentum", ema_momentum)
        check_count("ema_overwrite_frequency", ema_overwrite_frequency, 1)
        check_count("gradient_accumulation_steps", gradient_accumulation_steps, 2)
        super().__init__(name)
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._undecayed = Exclusion()
        self._averages: list[Variable] = []
        self._accumulators: list[Variable] = []
        # Whether a compiled step has the learning rate, as it is now, inside.
        self._rate_is_traced = False
        self._calls = self._add(Variable(0, False, "iteration", "int64", role="optimizer"))
        self._rate: Variable | LearningRateSchedule
        if isinstance(learning_rate, LearningRateSchedule):
            self._rate = learning_rate
        else:
            rate = check_rate(learning_rate)
            self._rate = self._add(
                Variable(rate, False, "learning_rate", "float32", role="optimizer")
            )

    # What it holds ------------------------------------------------------------------------------

    @property
    def iterations(self) -> Any:
        """How many updates there were: an int64 variable; with gradient accumulation a tensor."""
        if self.gradient_accumulation_steps:
            return B.op("Div", self._calls.value, self.gradient_accumulation_steps)
        return self._calls

    @property
    def learning_rate(self) -> Any:
        """The current learning rate, a float32 scalar: a variable, or what the schedule gives.

        A number can be assigned at any time. A schedule can be assigned until a compiled step has
        used the optimizer: that step has the old way of getting the rate inside.
        """
        if context.state.symbolic is not None:
            self._rate_is_traced = True
        if isinstance(self._rate, Variable):
            return self._rate
        return convert_to_tensor(self._rate(self._calls), FLOAT32)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if not isinstance(value, LearningRateSchedule):
            if not isinstance(self._rate, Variable):
                raise TypeError(
                    f"a schedule makes the learning rate of optimizer '{self.name}': it cannot be "
                    f"set to {value!r}. Make the optimizer with a number to set it later"
                )
            self._rate.assign(check_rate(value))
            return
        if self._rate_is_traced:
            raise ValueError(
                f"optimizer '{self.name}' is part of a compiled step already, which would not see "
                "a new schedule: assign it before the first step, or make a new optimizer and step"
            )
        if isinstance(self._rate, Variable):
            rate = self._rate
            self._variables = [v for v in self._variables if v is not rate]
        self._rate = value

    # State --------------------------------------------------------------------------------------

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the state for these variables, which are the ones that can be trained.

        Raises:
            ValueError: that has been done already.
        """
        super().build(variables)
        if self.use_ema:
            self._averages = self.add_optimizer_variables(variables, "average")
        if self.gradient_accumulation_steps:
            name = "gradient_accumulator"
            self._accumulators = self.add_optimizer_variables(variables, name)

    def exclude_from_weight_decay(
        self,
        var_list: Iterable[Variable] | None = None,
        var_names: Iterable[str] | None = None,
    ) -> None:
        """Leave variables out of weight decay.

        Args:
            var_list: the variables.
            var_names: regular expressions; a variable is left out if one occurs in its name.

        Raises:
            ValueError: the optimizer is built already.
        """
        if self.built:
            raise ValueError(
                f"optimizer '{self.name}' is built: call exclude_from_weight_decay before the "
                "first step"
            )
        self._undecayed = Exclusion(var_list or (), var_names or ())

    def decay_of(self, variable: Variable) -> float | None:
        """The weight decay of a variable that is not excluded."""
        return self.weight_decay

    # Updating -----------------------------------------------------------------------------------

    def apply(
        self, grads: Iterable[Any], trainable_variables: Iterable[Variable] | None = None
    ) -> None:
        """Update the variables by one step.

        Args:
            grads: one gradient per variable; variables whose gradient is None are left alone, with
                a warning.
            trainable_variables: by default those the optimizer was built with.

        Raises:
            GradientError: every gradient is None.
            VariableError: a variable that the optimizer was not built with.
            ValueError: not one gradient per variable.
            ShapeError: a gradient of another shape than its variable's.
        """
        grads = list(grads)
        known = self._trainable if self.built else None
        variables = given_or_known(grads, trainable_variables, known)
        if len(grads) != len(variables):
            raise ValueError(f"{len(grads)} gradients were given for {len(variables)} variables")
        if not variables:
            return
        if not self.built:
            with context.in_layer(self.name):
                self.build(variables)
        for variable in variables:
            self.state_index(variable)
        pairs = paired(grads, variables)
        with context.in_phase("update"), context.in_layer(self.name):
            if self.loss_scale_factor is not None:
                factor = 1.0 / self.loss_scale_factor
                pairs = [(B.op("Mul", g, factor), v) for g, v in pairs]
            if self.gradient_accumulation_steps:
                self._accumulate(pairs, self.gradient_accumulation_steps)
            else:
                self._update(pairs)
            if self.use_ema:
                self._update_averages()
            self._calls.assign_add(1)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Variable:
        """`apply` for pairs (gradient, variable); the count of calls is returned, as in Keras.

        Raises:
            TypeError: no such pairs.
        """
        pairs = list(grads_and_vars)
        check_pairs(pairs)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self._calls

    def _update(self, pairs: Pairs) -> None:
        """Clip the gradients, decay the weights, and update the variables."""
        gradients, variables = [g for g, _ in pairs], [v for _, v in pairs]
        gradients = clipped(gradients, self.clipnorm, self.clipvalue, self.global_clipnorm)
        pairs = list(zip(gradients, variables, strict=True))
        rate: Tensor = convert_to_tensor(self.learning_rate)
        decayed = [v for v in variables if v not in self._undecayed]
        decay_weights(decayed, rate, self.decay_of)
        self.update(pairs, rate)
        for variable in variables:
            constraint = getattr(variable, "constraint", None)
            if constraint is not None:
                variable.assign(constraint(variable.value))

    def _accumulate(self, pairs: Pairs, steps: int) -> None:
        """Add the gradients up; at every `steps`th call, update by their mean and begin anew."""
        last = every(steps, self._calls.value)
        total = {a: a.value for a in self._accumulators}
        summed = []
        for gradient, variable in pairs:
            accumulator = self._accumulators[self._index[variable]]
            total[accumulator] = B.op("Add", gradient, total[accumulator])
            summed.append((total[accumulator], variable))
        assign_if(
            last,
            [*(v for _, v in pairs), *self._variables],
            lambda: self._update([(B.op("Mul", g, 1.0 / steps), v) for g, v in summed]),
        )
        for accumulator, value in total.items():
            accumulator.assign(B.op("Where", last, 0.0, value))

    def _update_averages(self) -> None:
        count = convert_to_tensor(self.iterations)
        not_first = B.cast(B.op("Min", count, 1), FLOAT32)
        momentum = B.op("Mul", not_first, float(self.ema_momentum))
        rest = B.op("Sub", 1.0, momentum)
        for variable, average in zip(self._trainable, self._averages, strict=True):
            kept = B.op("Mul", average.value, B.cast(momentum, variable.dtype))
            new = B.op("Mul", variable.value, B.cast(rest, variable.dtype))
            average.assign(B.op("Add", kept, new))
        if self.ema_overwrite_frequency:
            assign_if(
                every(self.ema_overwrite_frequency, count),
                self._trainable,
                lambda: self.finalize_variable_values(self._trainable),
            )

    def update(self, pairs: Pairs, learning_rate: Tensor) -> None:
        """Update each variable by its gradient.

        Subclasses that need more scalars than the rate, computed once and not for each variable,
        write this instead of `update_step`.
        """
        for gradient, variable in pairs:
            self.update_step(gradient, variable, B.cast(learning_rate, variable.dtype))

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Update one variable; subclasses write this."""
        raise NotImplementedError(f"{type(self).__name__} has no update_step method")

    def step_count(self, offset: int = 1) -> Tensor:
        """The number of this update, counted from `offset`: a float32 scalar."""
        count = B.op("Add", convert_to_tensor(self.iterations), offset)
        return B.cast(count, FLOAT32)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """With `use_ema`: set the variables to their moving averages, as after training."""
        if self.use_ema:
            for variable in var_list:
                variable.assign(self._averages[self.state_index(variable)].value)

    def scale_loss(self, loss: Any) -> Any:
        """The loss times `loss_scale_factor`, whose gradients `apply` scales back."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def __repr__(self) -> str:
        shown: Any = self._rate
        if isinstance(shown, Variable) and context.state.symbolic is None:
            shown = str(shown.numpy())
        known = {"name": self.name, "learning_rate": shown}
        return described(type(self).__name__, known | self._given_arguments() | known)

    # Configuration ------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that `from_config` makes an equal optimizer of, without its state."""
        rate = self._rate
        given = float(rate.numpy()) if isinstance(rate, Variable) else schedules.serialize(rate)
        return {**super().get_config(), "learning_rate": given}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """An optimizer made of the arguments that `get_config` gave, here or in Keras."""
        config = dict(config)
        if isinstance(config.get("learning_rate"), Mapping):
            config["learning_rate"] = schedules.get(config["learning_rate"])
        return cls(**config)
