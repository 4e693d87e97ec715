"""Optimizers, with Keras's arguments, defaults and numbers."""

from onnxtape.optimizers.adam import Adam
from onnxtape.optimizers.optimizer import Optimizer
from onnxtape.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer"]
