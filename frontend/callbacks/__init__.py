"""What `fit`, `evaluate` and `predict` call on the way, with Keras's names and arguments."""

from typing import TYPE_CHECKING

from onnxtape import missing
from onnxtape.callbacks.backup import BackupAndRestore
from onnxtape.callbacks.callback import Callback
from onnxtape.callbacks.callback_list import CallbackList
from onnxtape.callbacks.checkpoint import ModelCheckpoint
from onnxtape.callbacks.csv_logger import CSVLogger
from onnxtape.callbacks.ema import SwapEMAWeights
from onnxtape.callbacks.history import History
from onnxtape.callbacks.learning_rate import LearningRateScheduler, ReduceLROnPlateau
from onnxtape.callbacks.monitor import MonitorCallback
from onnxtape.callbacks.progress import ProgbarLogger
from onnxtape.callbacks.simple import LambdaCallback, TerminateOnNaN
from onnxtape.callbacks.stopping import EarlyStopping

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TerminateOnNaN",
]

if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
