"""Masks that tensors carry from layer to layer, as in Keras: booleans, False for steps of padding.

`Embedding(mask_zero=True)` and `Masking` make one. A layer gets its input's as the argument `mask`,
if its `call` has one, and hands it on if it supports masking. Losses and metrics leave out what the
mask of the predictions does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """Take the mask off a tensor; anything else stays as it is, and so do tensors of the functional
    API, which are not computed with."""
    if mask_of(x) is not None and not (x._symbolic is not None and x._symbolic.none_dims):
        del x._keras_mask


@contextmanager
def worn(xs: Sequence[Any], own: Sequence[Any]) -> Iterator[None]:
    """Let tensors carry other masks for a while; None leaves a tensor its own."""
    before = [mask_of(x) for x in xs]
    for x, mask in zip(xs, own, strict=True):
        if mask is not None:
            attach(x, mask)
    try:
        yield
    finally:
        for x, mask, previous in zip(xs, own, before, strict=True):
            if mask is not None and previous is None:
                detach(x)


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
    tensors = _of_tensors(parameters, args, kwargs)
    given = {**dict(zip(parameters, args, strict=False)), **kwargs}
    for name, value in tensors.items():
        wanted = "mask" if len(tensors) == 1 else f"{name}_mask"
        if wanted in parameters and given.get(wanted) is None:
            kwargs[wanted] = _masks(value)
    return _masks(args[0] if args else next(iter(tensors.values())))


def takes_one(parameters: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call gets the mask of its one argument of tensors as `mask`."""
    return "mask" in parameters and len(_of_tensors(parameters, args, kwargs)) == 1


def _of_tensors(
    parameters: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments that hold tensors, by their names."""
    given = {**dict(zip(parameters, args, strict=False)), **kwargs}
    return {
        name: value
        for name, value in given.items()
        if any(isinstance(leaf, Tensor) for leaf in nest.flatten(value))
    }


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
    if not layer.supports_masking and not _makes_masks(layer):
        if previous is not None:
            context.warn_user(
                f"layer '{layer.name}' ({type(layer).__name__}) got an input with a mask, but does "
                "not support masking: the layers after it will not see the mask. Set "
                "self.supports_masking = True if the mask holds for its output, too"
            )
        return
    made = nest.flatten(outputs)
    for x, mask in zip(made, of_outputs(layer, inputs, made, previous), strict=True):
        if isinstance(x, Tensor) and mask_of(x) is None:
            attach(x, mask)


def of_outputs(layer: Layer, inputs: Any, made: Sequence[Any], previous: Any) -> list[Any]:
    """The masks of a layer's outputs: those that they carry, or else those that it computes."""
    masks = [mask_of(x) for x in made]
    handed_on = previous is not None and layer.supports_masking
    if (handed_on or _makes_masks(layer)) and any(mask is None for mask in masks):
        found = nest.flatten(layer.compute_mask(inputs, previous))
        found += [None] * (len(made) - len(found))
        masks = [own if own is not None else mask for own, mask in zip(masks, found, strict=False)]
    return masks


def _makes_masks(layer: Layer) -> bool:
    from onnxtape.layers.layer import Layer

    return type(layer).compute_mask is not Layer.compute_mask
