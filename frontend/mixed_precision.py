"""Mixed precision: layers compute in 16 bits, and keep their weights in float32.

Under the policy "mixed_float16" or "mixed_bfloat16" a layer casts its inputs, and its weights when
it reads them, to 16 bits; gradients reach the weights in float32 again, through the cast. Losses,
normalization, softmax and the metrics compute in float32 whatever the policy is. float16 holds
nothing above 65504 and little below 1e-7, so its gradients want scaling: see
`ot.optimizers.LossScaleOptimizer`, which `model.compile` puts around the optimizer by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnxtape import missing
from onnxtape.dtypes import FLOAT32, is_float

if TYPE_CHECKING:
    from onnxtape.optimizers import LossScaleOptimizer as LossScaleOptimizer

_SIXTEEN_BITS = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


class DTypePolicy:
    """What a layer computes in, and what it keeps its weights in.

    Args:
        name: "mixed_float16", "mixed_bfloat16", or the name of one dtype for both; by default the
            policy in use.

    Attributes:
        compute_dtype: of inputs, as they are cast, of operations and outputs.
        variable_dtype: of weights.

    Raises:
        ValueError: another name.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name: str = dtype_policy().name if name is None else name
        self.compute_dtype: np.dtype[Any]
        self.variable_dtype: np.dtype[Any]
        kind = self.name.removeprefix("mixed_")
        if kind != self.name:
            if kind not in _SIXTEEN_BITS:
                raise _no_policy(name)
            self.compute_dtype, self.variable_dtype = _SIXTEEN_BITS[kind], FLOAT32
            return
        try:
            self.compute_dtype = self.variable_dtype = _SIXTEEN_BITS.get(kind) or np.dtype(kind)
        except TypeError:
            raise _no_policy(name) from None

    @property
    def autocast_dtype(self) -> np.dtype[Any] | None:
        """What a layer's weights are cast to when it reads them; None leaves them as they are."""
        mixed = self.compute_dtype != self.variable_dtype and is_float(self.compute_dtype)
        return self.compute_dtype if mixed else None

    def get_config(self) -> dict[str, str]:
        """The arguments that make an equal policy."""
        return {"name": self.name}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self.name}">'


#: Keras's older name.
Policy = DTypePolicy


class _Global:
    """What `set_dtype_policy` sets."""

    policy: DTypePolicy


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are given none."""
    return _Global.policy


def set_dtype_policy(policy: DTypePolicy | str) -> None:
    """Set the policy of layers that are made from now on and given none."""
    _Global.policy = get_policy(policy)


#: Keras's older name.
set_global_policy = set_dtype_policy


def set_mixed_precision(dtype: Literal["float16", "bfloat16"] | None) -> None:
    """Let layers that are made from now on compute in 16 bits, with weights in float32.

    Args:
        dtype: "float16", "bfloat16", or None for float32 throughout.

    Raises:
        ValueError: another dtype.
    """
    if dtype is not None and dtype not in _SIXTEEN_BITS:
        raise ValueError(f"mixed precision is 'float16', 'bfloat16' or None, not {dtype!r}")
    set_dtype_policy("float32" if dtype is None else f"mixed_{dtype}")


def get_policy(given: DTypePolicy | npt.DTypeLike | None) -> DTypePolicy:
    """A policy, of itself, of its name or configuration, of a dtype, or (None) the one in use."""
    if given is None:
        return dtype_policy()
    if isinstance(given, DTypePolicy):
        return given
    if isinstance(given, dict):
        config: Any = given.get("config", given)
        return DTypePolicy(config["name"])
    return DTypePolicy(given if isinstance(given, str) else np.dtype(given).name)


def _no_policy(name: str | None) -> ValueError:
    return ValueError(
        f"no dtype policy is called {name!r}: it is 'mixed_float16', 'mixed_bfloat16', or the name "
        "of a dtype such as 'float32'"
    )


_Global.policy = DTypePolicy("float32")


def __getattr__(name: str) -> Any:
    # Where Keras had it first. The optimizers are not imported before they are wanted.
    if name == "LossScaleOptimizer":
        from onnxtape.optimizers import LossScaleOptimizer

        return LossScaleOptimizer
    raise missing.no_attribute(__name__, name, globals())
