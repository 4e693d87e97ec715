"""Models: layers put together."""

from typing import TYPE_CHECKING

from onnxtape import missing
from onnxtape.models.cloning import clone_model
from onnxtape.models.configuration import model_from_json
from onnxtape.models.model import Model
from onnxtape.models.sequential import Sequential
from onnxtape.saving.models import load_model, save_model

__all__ = ["Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]

if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
