"""Optimizers: variables and state after each of several steps, from the same gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.keras_families.common import Arrays, Program, array, numpy

SHAPES = {"kernel": (4, 3), "bias": (3,), "stack": (2, 3, 2), "scale": ()}
STEPS = 7

#: Each takes `k` and the optimizer's name, and makes it.
MAKERS: dict[str, Callable[..., Any]] = {}


def _case(case: str, optimizer: str, *args: Any, **options: Any) -> None:
    def make(k: Any, name: str) -> Any:
        given = [a(k) if callable(a) else a for a in args]
        return getattr(k.optimizers, optimizer)(*given, name=name, **options)

    MAKERS[case] = make


for _name, _optimizer, _options in (
    ("sgd", "SGD", {}),
    ("momentum", "SGD", {"momentum": 0.9}),
    ("nesterov", "SGD", {"momentum": 0.9, "nesterov": True}),
    ("rmsprop", "RMSprop", {}),
    ("rmsprop_momentum", "RMSprop", {"rho": 0.8, "momentum": 0.5}),
    ("rmsprop_centered", "RMSprop", {"centered": True, "epsilon": 1e-3}),
    ("rmsprop_all", "RMSprop", {"centered": True, "momentum": 0.7, "epsilon": 1e-4}),
    ("adam", "Adam", {}),
    ("adam_options", "Adam", {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}),
    ("amsgrad", "Adam", {"amsgrad": True, "beta_2": 0.6}),
    ("adamw", "AdamW", {}),
    ("adamw_amsgrad", "AdamW", {"weight_decay": 0.3, "amsgrad": True}),
    ("adagrad", "Adagrad", {}),
    ("adagrad_options", "Adagrad", {"initial_accumulator_value": 0.0, "epsilon": 1e-2}),
    ("adadelta", "Adadelta", {}),
    ("adadelta_options", "Adadelta", {"rho": 0.7, "epsilon": 1e-2}),
    ("adamax", "Adamax", {}),
    ("adamax_options", "Adamax", {"beta_1": 0.7, "beta_2": 0.6, "epsilon": 1e-2}),
    ("nadam", "Nadam", {}),
    ("nadam_options", "Nadam", {"beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-2}),
    ("lion", "Lion", {}),
    ("lion_options", "Lion", {"beta_1": 1.0, "beta_2": 0.5}),
    ("ftrl", "Ftrl", {}),
    ("ftrl_options", "Ftrl", {
        "learning_rate_power": -0.7, "initial_accumulator_value": 0.3, "beta": 0.2,
        "l1_regularization_strength": 0.4, "l2_regularization_strength": 0.1,
        "l2_shrinkage_regularization_strength": 0.05}),
    ("ftrl_power_0", "Ftrl", {"learning_rate_power": 0.0, "l1_regularization_strength": 0.1}),
    ("adafactor", "Adafactor", {}),
    ("adafactor_options", "Adafactor", {
        "beta_2_decay": -0.5, "epsilon_1": 1e-3, "epsilon_2": 0.5, "clip_threshold": 0.3,
        "relative_step": False}),
    ("muon", "Muon", {}),
    ("muon_options", "Muon", {
        "adam_beta_1": 0.8, "adam_beta_2": 0.9, "adam_weight_decay": 0.1, "epsilon": 1e-2,
        "weight_decay": 0.3, "exclude_layers": ["nothing"], "adam_lr_ratio": 0.5, "momentum": 0.7,
        "ns_steps": 2, "nesterov": False, "rms_rate": None}),
    ("muon_excluded", "Muon", {"exclude_layers": ["kern"], "exclude_embeddings": False}),
    ("lamb", "Lamb", {}),
    ("lamb_options", "Lamb", {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-2}),
):  # fmt: skip
    _case(_name, _optimizer, 0.05, **_options)
    _case(f"{_name}.defaults", _optimizer, **_options)

for _name, _options in (
    ("weight_decay", {"weight_decay": 0.1}),
    ("clipnorm", {"clipnorm": 1.3}),
    ("clipvalue", {"clipvalue": 0.6}),
    ("global_clipnorm", {"global_clipnorm": 2.0}),
    ("loss_scale", {"loss_scale_factor": 3.0}),
    ("ema", {"use_ema": True, "ema_momentum": 0.7}),
    ("ema_overwrite", {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 3}),
    ("ema_always", {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 1}),
    ("accumulation", {"gradient_accumulation_steps": 3}),
    ("accumulation_clipnorm", {"gradient_accumulation_steps": 2, "clipnorm": 0.5}),
    ("everything", {
        "weight_decay": 0.1, "global_clipnorm": 1.0, "loss_scale_factor": 2.0, "use_ema": True,
        "ema_momentum": 0.6, "ema_overwrite_frequency": 2, "gradient_accumulation_steps": 2}),
):  # fmt: skip
    _case(f"sgd.{_name}", "SGD", 0.05, momentum=0.5, **_options)
    _case(f"adam.{_name}", "Adam", 0.05, **_options)
    if "accumulation" in _name or _name == "everything":
        for _optimizer in ("Ftrl", "Nadam", "Lamb", "Adafactor"):
            _case(f"{_optimizer.lower()}.{_name}", _optimizer, 0.05, **_options)


def _decay(k: Any) -> Any:
    return k.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)


_case("sgd.schedule", "SGD", _decay)
_case("sgd.schedule_accumulation", "SGD", _decay, gradient_accumulation_steps=2)
_case("adamw.schedule", "AdamW", _decay, weight_decay=0.2)


def gradients(step: int) -> list[Any]:
    return [array(shape, 10 * step + 1) for shape in SHAPES.values()]


def variables(k: Any) -> list[Any]:
    return [k.Variable(array(shape, 7), name=name) for name, shape in SHAPES.items()]


def flat(values: list[Any]) -> Any:
    return np.concatenate([numpy(v).astype(np.float32).ravel() for v in values])


def train(
    k: Any,
    optimizer: Any,
    trained: list[Any],
    wrap: Callable[[Callable[[Any], None]], Callable[[Any], None]] = lambda step: step,
) -> Arrays:
    """Take several steps, the last ones with another learning rate where that is a number."""

    def apply(given: Any) -> None:
        optimizer.apply(given, trained)

    step = wrap(apply)
    weights = []
    for count in range(STEPS):
        if count == 4 and any("learning_rate" in v.path for v in optimizer.variables):
            optimizer.learning_rate = 0.02
        step([k.ops.convert_to_tensor(g) for g in gradients(count)])
        weights.append(flat(trained))
    found: Arrays = {"weights": np.stack(weights)}
    found["progress"] = flat([optimizer.iterations, optimizer.learning_rate])
    if optimizer.use_ema:
        optimizer.finalize_variable_values(trained)
        found["final"] = flat(trained)
    # Keras holds scalars in place of the averages of vectors there, and gives Nadam's no name.
    kind = type(optimizer).__name__
    if kind != "Adafactor":
        found["state"] = flat(optimizer.variables)
        if kind != "Nadam":
            found["names"] = np.array([v.path for v in optimizer.variables])
    return found


def _program(case: str) -> Program:
    def run(k: Any) -> Arrays:
        return train(k, MAKERS[case](k, case.split(".")[0]), variables(k))

    return run


def _exclusion(k: Any, **which: Any) -> Arrays:
    trained = variables(k)
    optimizer = k.optimizers.SGD(0.1, weight_decay=0.5, name="sgd")
    if "var_list" in which:
        which["var_list"] = [trained[i] for i in which["var_list"]]
    optimizer.exclude_from_weight_decay(**which)
    return train(k, optimizer, trained)


def _without_some_gradients(k: Any) -> Arrays:
    import warnings

    optimizer = k.optimizers.Adam(0.1, use_ema=True, global_clipnorm=1.0, name="adam")
    trained = variables(k)
    optimizer.build(trained)
    found: Arrays = {}
    for count in range(3):
        given = [k.ops.convert_to_tensor(g) for g in gradients(count)]
        given[count] = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.apply(given, trained)
        found[f"weights.{count}"] = flat(trained)
    found["state"] = flat(optimizer.variables)
    return found


def _configurations(k: Any) -> Arrays:
    found: Arrays = {}
    for case, make in MAKERS.items():
        config = make(k, "name").get_config()
        if isinstance(config["learning_rate"], dict):
            # Keras notes where its classes are found.
            kept = ("class_name", "config")
            config["learning_rate"] = {key: config["learning_rate"][key] for key in kept}
        found[case] = np.array(repr(sorted(config.items())))
    return found


def _zero_gradients(k: Any) -> Arrays:
    """Where norms and averages are zero."""
    found: Arrays = {}
    zero = [k.ops.zeros(shape) for shape in SHAPES.values()]
    for case in ("adam.clipnorm", "adam.global_clipnorm", "lamb", "lion", "adagrad", "rmsprop"):
        optimizer, trained = MAKERS[case](k, "zero"), variables(k)
        for _ in range(2):
            optimizer.apply(zero, trained)
        found[case] = flat(trained)
    return found


PROGRAMS: dict[str, Program] = {case: _program(case) for case in MAKERS}
PROGRAMS |= {
    "exclude_names": functools.partial(_exclusion, var_names=["bias", "sc"]),
    "exclude_list": functools.partial(_exclusion, var_list=[0, 2]),
    "exclude_both": functools.partial(_exclusion, var_list=[1], var_names=["^kern"]),
    "without_some_gradients": _without_some_gradients,
    "configurations": _configurations,
    "zero_gradients": _zero_gradients,
}
