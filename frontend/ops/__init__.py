"""Operations on tensors, named after `keras.ops`, which mostly follows NumPy.

Each takes whatever `convert_to_tensor` takes, promotes dtypes as Keras does, and works eagerly, in
a compiled step and in the functional API alike.
"""

from typing import TYPE_CHECKING

from onnxtape import missing
from onnxtape.ops import (
    adaptive,
    arithmetic,
    arranging,
    blocks,
    control_flow,
    convolution,
    creation,
    elementary,
    functions,
    indexing,
    linalg,
    linear,
    logic,
    matrices,
    nn,
    normalization,
    patterns,
    pooling,
    reals,
    reductions,
    segments,
    shapes,
    sorting,
    special,
    spectra,
    statistics,
    windows,
)
from onnxtape.ops import (
    image as image,
)
from onnxtape.ops.adaptive import *  # noqa: F403
from onnxtape.ops.arithmetic import *  # noqa: F403
from onnxtape.ops.arranging import *  # noqa: F403
from onnxtape.ops.blocks import *  # noqa: F403
from onnxtape.ops.control_flow import *  # noqa: F403
from onnxtape.ops.convolution import *  # noqa: F403
from onnxtape.ops.creation import *  # noqa: F403
from onnxtape.ops.elementary import *  # noqa: F403
from onnxtape.ops.functions import *  # noqa: F403
from onnxtape.ops.indexing import *  # noqa: F403
from onnxtape.ops.linalg import *  # noqa: F403
from onnxtape.ops.linear import *  # noqa: F403
from onnxtape.ops.logic import *  # noqa: F403
from onnxtape.ops.matrices import *  # noqa: F403
from onnxtape.ops.nn import *  # noqa: F403
from onnxtape.ops.normalization import *  # noqa: F403
from onnxtape.ops.patterns import *  # noqa: F403
from onnxtape.ops.pooling import *  # noqa: F403
from onnxtape.ops.reals import *  # noqa: F403
from onnxtape.ops.reductions import *  # noqa: F403
from onnxtape.ops.segments import *  # noqa: F403
from onnxtape.ops.shapes import *  # noqa: F403
from onnxtape.ops.sorting import *  # noqa: F403
from onnxtape.ops.special import *  # noqa: F403
from onnxtape.ops.spectra import *  # noqa: F403
from onnxtape.ops.statistics import *  # noqa: F403
from onnxtape.ops.windows import *  # noqa: F403

__all__: list[str] = []
__all__ += adaptive.__all__
__all__ += arithmetic.__all__
__all__ += arranging.__all__
__all__ += blocks.__all__
__all__ += control_flow.__all__
__all__ += convolution.__all__
__all__ += creation.__all__
__all__ += elementary.__all__
__all__ += functions.__all__
__all__ += indexing.__all__
__all__ += linalg.__all__
__all__ += linear.__all__
__all__ += logic.__all__
__all__ += matrices.__all__
__all__ += nn.__all__
__all__ += normalization.__all__
__all__ += patterns.__all__
__all__ += pooling.__all__
__all__ += reals.__all__
__all__ += reductions.__all__
__all__ += segments.__all__
__all__ += shapes.__all__
__all__ += sorting.__all__
__all__ += special.__all__
__all__ += spectra.__all__
__all__ += statistics.__all__
__all__ += windows.__all__

if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
