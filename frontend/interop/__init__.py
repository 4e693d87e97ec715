"""Models from elsewhere: ONNX files, and the frameworks that export them."""

from onnxtape.interop.frameworks import TorchModel, from_torch
from onnxtape.interop.keras_models import KerasModel, from_keras
from onnxtape.interop.model import OnnxModel, load_onnx
from onnxtape.interop.training_info import (
    TrainingInfo,
    export_training_info,
    load_training_info,
)

__all__ = [
    "KerasModel",
    "OnnxModel",
    "TorchModel",
    "TrainingInfo",
    "export_training_info",
    "from_keras",
    "from_torch",
    "load_onnx",
    "load_training_info",
]
