"""Input pipelines: `ot.data.Dataset`, with the names of `tf.data`."""

from typing import TYPE_CHECKING

from onnxtape import missing
from onnxtape.data.dataset import AUTOTUNE, Dataset
from onnxtape.data.pinned import empty_pinned
from onnxtape.data.shuffling import set_global_seed
from onnxtape.data.stages import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY

__all__ = [
    "AUTOTUNE",
    "INFINITE_CARDINALITY",
    "UNKNOWN_CARDINALITY",
    "Dataset",
    "empty_pinned",
    "set_global_seed",
]

if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
