"""The models in PyTorch, in the form that its users write."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gpu.sizes import Dcgan, Gpt, Resnet


class _Block(nn.Module):
    def __init__(self, size: Gpt) -> None:
        super().__init__()
        self.heads = size.heads
        self.before = nn.LayerNorm(size.width)
        self.project = nn.Linear(size.width, 3 * size.width)
        self.joined = nn.Linear(size.width, size.width)
        self.between = nn.LayerNorm(size.width)
        self.wide = nn.Linear(size.width, 4 * size.width)
        self.narrow = nn.Linear(4 * size.width, size.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.project(self.before(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.joined(y.transpose(1, 2).reshape(batch, length, width))
        result: torch.Tensor = x + self.narrow(functional.gelu(self.wide(self.between(x))))
        return result


class GptModel(nn.Module):
    """See `keras_models.gpt`."""

    def __init__(self, size: Gpt) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.places = nn.Embedding(size.length, size.width)
        self.blocks = nn.Sequential(*(_Block(size) for _ in range(size.layers)))
        self.last = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tokens(x) + self.places.weight
        result: torch.Tensor = self.head(self.last(self.blocks(x)))
        return result


def _convolved(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            _convolved(inputs, width, 1),
            nn.ReLU(),
            _convolved(width, width, 3, stride),
            nn.ReLU(),
            _convolved(width, 4 * width, 1),
        )
        same = stride == 1 and inputs == 4 * width
        self.short = nn.Identity() if same else _convolved(inputs, 4 * width, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.path(x) + self.short(x))


def resnet(size: Resnet) -> nn.Module:
    """See `keras_models.resnet`; images come channels first."""
    parts: list[nn.Module] = [_convolved(3, size.width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = size.width
    for stage, blocks in enumerate(size.blocks):
        for i in range(blocks):
            width = size.width * 2**stage
            parts.append(_Bottleneck(channels, width, 2 if stage and i == 0 else 1))
            channels = 4 * width
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, size.classes)]
    return nn.Sequential(*parts)


def dcgan(size: Dcgan) -> tuple[nn.Module, nn.Module]:
    """See `keras_models.dcgan`."""
    leaky: Any = lambda: nn.LeakyReLU(0.2)  # noqa: E731
    generator = nn.Sequential(
        nn.Linear(size.latent, 7 * 7 * size.width),
        leaky(),
        nn.Unflatten(1, (size.width, 7, 7)),
        nn.ConvTranspose2d(size.width, size.width, 4, 2, 1),
        leaky(),
        nn.ConvTranspose2d(size.width, size.width, 4, 2, 1),
        leaky(),
        nn.Conv2d(size.width, 1, 7, 1, 3),
        nn.Sigmoid(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, size.width // 2, 3, 2, 1),
        leaky(),
        nn.Conv2d(size.width // 2, size.width, 3, 2, 1),
        leaky(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(size.width, 1),
    )
    return generator, discriminator
