"""Models: layers put together."""

from onnxtape.models.model import Model
from onnxtape.models.sequential import Sequential

__all__ = ["Model", "Sequential"]
