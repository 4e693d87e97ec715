"""What `Model.compile`, `fit`, `evaluate` and `predict` are made of."""

from onnxtape.training.trainer import Trainer

__all__ = ["Trainer"]
