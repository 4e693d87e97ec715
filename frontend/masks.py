"""Masks that tensors carry from layer to layer, as in Keras: booleans, False for steps of padding.

`Embedding(mask_zero=True)` and `Masking` make one. A layer gets its input's as the argument `mask`,
if its `call` has one, and hands it on if it supports masking. Losses and metrics leave out what the
mask of the predictions does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxtape import context, nest
from onnxtape.tensor import Tensor

if TYPE_CHECKING:
    from onnxtape.layers.layer import Layer


def mask_of(x: Any) -> Any:
    """The mask that a tensor carries; None for none."""
    return getattr(x, "_keras_mask", None) if isinstance(x, Tensor) else None


def attach(x: Tensor, mask: Any) -> Tensor:
    """The tensor, which carries the mask from now on."""
    if mask is not None:
        x._keras_mask = mask
    return x


def detach(x: Any) -> None:
    """Take the mask off a tensor; anything else stays as it is."""
    if mask_of(x) is not None:
        del x._keras_mask


def fill_in(parameters: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Put masks of tensors into the mask arguments that were left out.

    A call on one tensor (or list of them) takes its mask as `mask`, one on several takes that of
    `query` as `query_mask`, and so on.

    Args:
        parameters: the names of all parameters of `call`.
        args, kwargs: of this call; `kwargs` is completed.

    Returns:
        The mask of the first argument, in its structure; None where there is none.
    """
    if kwargs.get("mask") is not None:
        return kwargs["mask"]
    leaves = nest.flatten((args, kwargs))
    if all(mask_of(leaf) is None for leaf in leaves):
        return None
    given = {**dict(zip(parameters, args, strict=False)), **kwargs}
    tensors = {
        name: value
        for name, value in given.items()
        if any(isinstance(leaf, Tensor) for leaf in nest.flatten(value))
    }
    for name, value in tensors.items():
        wanted = "mask" if len(tensors) == 1 else f"{name}_mask"
        if wanted in parameters and given.get(wanted) is None:
            kwargs[wanted] = _masks(value)
    return _masks(args[0] if args else next(iter(tensors.values())))


def _masks(tree: Any) -> Any:
    """The masks of tensors in a structure; None if there are none at all."""
    found = nest.map_structure(mask_of, tree)
    return None if all(mask is None for mask in nest.flatten(found)) else found


def pass_on(layer: Layer, inputs: Any, outputs: Any, previous: Any) -> None:
    """Let a layer's outputs carry their masks.

    Args:
        inputs: the call's first argument.
        previous: its mask, in its structure.
    """
    from onnxtape.layers.layer import Layer

    makes_masks = type(layer).compute_mask is not Layer.compute_mask
    if not layer.supports_masking and not makes_masks:
        if previous is not None:
            context.warn_user(
                f"layer '{layer.name}' ({type(layer).__name__}) got an input with a mask, but does "
                "not support masking: the layers after it will not see the mask. Set "
                "self.supports_masking = True if the mask holds for its output, too"
            )
        return
    made = nest.flatten(outputs)
    if (previous is None and not makes_masks) or all(mask_of(x) is not None for x in made):
        return
    found = layer.compute_mask(inputs, previous)
    if found is not None:
        for x, mask in zip(made, nest.flatten(found), strict=False):
            if isinstance(x, Tensor) and mask_of(x) is None:
                attach(x, mask)
