"""Operations on tensors, named after `keras.ops`, which mostly follows NumPy.

Each takes whatever `convert_to_tensor` takes, promotes dtypes as Keras does, and works eagerly, in
a compiled step and in the functional API alike.
"""

from onnxtape.ops import (
    arithmetic,
    creation,
    elementary,
    indexing,
    linear,
    logic,
    nn,
    reductions,
    shapes,
)
from onnxtape.ops.arithmetic import *  # noqa: F403
from onnxtape.ops.creation import *  # noqa: F403
from onnxtape.ops.elementary import *  # noqa: F403
from onnxtape.ops.indexing import *  # noqa: F403
from onnxtape.ops.linear import *  # noqa: F403
from onnxtape.ops.logic import *  # noqa: F403
from onnxtape.ops.nn import *  # noqa: F403
from onnxtape.ops.reductions import *  # noqa: F403
from onnxtape.ops.shapes import *  # noqa: F403

__all__: list[str] = []
__all__ += arithmetic.__all__
__all__ += creation.__all__
__all__ += elementary.__all__
__all__ += indexing.__all__
__all__ += linear.__all__
__all__ += logic.__all__
__all__ += nn.__all__
__all__ += reductions.__all__
__all__ += shapes.__all__
