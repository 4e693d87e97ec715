"""Optimizers, with Keras's arguments, defaults and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxtape import missing
from onnxtape.lookup import find
from onnxtape.optimizers import schedules
from onnxtape.optimizers.adadelta import Adadelta
from onnxtape.optimizers.adafactor import Adafactor
from onnxtape.optimizers.adagrad import Adagrad
from onnxtape.optimizers.adam import Adam, AdamW
from onnxtape.optimizers.adamax import Adamax
from onnxtape.optimizers.ftrl import Ftrl
from onnxtape.optimizers.lamb import Lamb
from onnxtape.optimizers.lion import Lion
from onnxtape.optimizers.loss_scale import LossScaleOptimizer
from onnxtape.optimizers.muon import Muon
from onnxtape.optimizers.nadam import Nadam
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.rmsprop import RMSprop
from onnxtape.optimizers.schedule_free import ScheduleFreeAdamW
from onnxtape.optimizers.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "Muon",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "ScheduleFreeAdamW",
    "get",
    "schedules",
    "serialize",
]

_BY_NAME = {
    cls.__name__.lower(): cls
    for cls in (
        SGD,
        RMSprop,
        Adam,
        AdamW,
        Adagrad,
        Adadelta,
        Adamax,
        Nadam,
        Lion,
        Ftrl,
        Adafactor,
        Lamb,
        Muon,
        ScheduleFreeAdamW,
        LossScaleOptimizer,
    )
}


def get(identifier: Any) -> Any:
    """An optimizer from its name ("adam"), class or configuration (see `serialize`), or itself."""
    return find(identifier, _BY_NAME, Optimizer, "optimizer")


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """The configuration that `get` makes an equal optimizer of, without its state."""
    return {"class_name": type(optimizer).__name__, "config": optimizer.get_config()}


if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
