"""Operations on tensors, named after `keras.ops`, which mostly follows NumPy.

Each takes whatever `convert_to_tensor` takes, promotes dtypes as Keras does, and works eagerly, in a
compiled step and in the functional API alike.
"""

from onnxtape.engine import convert_to_tensor
from onnxtape.ops.arithmetic import *  # noqa: F403
from onnxtape.ops.creation import *  # noqa: F403
from onnxtape.ops.indexing import *  # noqa: F403
from onnxtape.ops.linear import *  # noqa: F403
from onnxtape.ops.nn import *  # noqa: F403
from onnxtape.ops.reductions import *  # noqa: F403
from onnxtape.ops.shapes import *  # noqa: F403

__all__ = ["convert_to_tensor"]
