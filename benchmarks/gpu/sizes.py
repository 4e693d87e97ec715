"""How large the workloads are: as they are reported, and small enough to try the program."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Batch = tuple[NDArray[np.generic], NDArray[np.generic]]


class Gpt(NamedTuple):
    """A GPT: pre-norm blocks, learned positions, gelu, a head of its own."""

    layers: int
    width: int
    heads: int
    length: int
    vocabulary: int
    batch: int


class Resnet(NamedTuple):
    """A residual network of bottleneck blocks: ResNet-50 has (3, 4, 6, 3) of them."""

    blocks: tuple[int, ...]
    width: int
    pixels: int
    classes: int
    batch: int


class Dcgan(NamedTuple):
    """The generator and the discriminator of Keras's guide, on 28 x 28 images."""

    latent: int
    width: int
    batch: int


SIZES = {
    "full": {
        "gpt": Gpt(12, 768, 12, 1024, 50304, 8),
        "resnet": Resnet((3, 4, 6, 3), 64, 224, 1000, 64),
        "dcgan": Dcgan(128, 128, 256),
    },
    "tiny": {
        "gpt": Gpt(2, 16, 2, 8, 11, 2),
        "resnet": Resnet((1, 1), 4, 16, 5, 2),
        "dcgan": Dcgan(4, 4, 3),
    },
}


def batch_of(size: Gpt | Resnet | Dcgan) -> Batch:
    """One batch: it is trained on again and again, and copied to the device at each step."""
    random = np.random.default_rng(0)
    if isinstance(size, Gpt):
        text = random.integers(0, size.vocabulary, (size.batch, size.length + 1))
        return text[:, :-1].copy(), text[:, 1:].copy()
    if isinstance(size, Resnet):
        shape = (size.batch, size.pixels, size.pixels, 3)
        images = random.standard_normal(shape).astype(np.float32)
        return images, random.integers(0, size.classes, size.batch)
    images = random.uniform(0, 1, (size.batch, 28, 28, 1)).astype(np.float32)
    return images, np.zeros(size.batch, np.int64)
