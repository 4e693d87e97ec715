"""Writes torch_models/NAME.onnx and NAME.npz: models that PyTorch exports, and how it trains them.

Run it in an environment with PyTorch, onnxscript and transformers:
``python tests/reference/make_torch_models.py [FOLDER]``. `tests/peers` runs it again and compares.

Each .npz holds, for one batch: ``input.NAME``; ``output``; ``target``; ``gradient.PARAMETER`` of
the mean squared error; and ``losses``, those of 20 steps of Adam with rate 1e-3.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

FOLDER = Path(__file__).parent / "torch_models"
CALL = "pkg.torch.onnx.fx_node"
BATCH, LENGTH = torch.export.Dim("batch"), torch.export.Dim("length", max=30)
IMAGES = ((3, 2, 8, 8), {0: BATCH})
TOKENS = ((3, 7), {0: BATCH, 1: LENGTH})


class Perceptron(nn.Module):
    """Layer normalization and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.last(functional.gelu(self.norm(self.first(x))))


class Convolutions(nn.Module):
    """Strides, groups, pooling, both kinds of normalization, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.batch_norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.group_norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 2, 2, stride=2)
        self.last = nn.Linear(2 * 4 * 4, 3)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool2d(torch.relu(self.batch_norm(self.first(x))), 2, 1, 1)
        x = functional.silu(self.group_norm(self.second(x)))
        x = functional.adaptive_avg_pool2d(self.up(x)[:, :, :8, :8], (4, 4))
        return self.last(x.flatten(1))


class Tagger(nn.Module):
    """A bidirectional LSTM, whose weights the exporter packs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.lstm = nn.LSTM(5, 6, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 4, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.last(self.gru(self.lstm(self.embed(x))[0])[0])


class Graph(nn.Module):
    """Messages along edges, gathered and added up; a constant that the exporter computes."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.edge = nn.Linear(4, 6), nn.Linear(12, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        source, target = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 0]])
        h = torch.relu(self.node(x)) * torch.exp(-torch.arange(6) / 6)
        message = torch.tanh(self.edge(torch.cat([h[source], h[target]], -1)))
        count = torch.zeros(5, 1).index_add(0, target, torch.ones(7, 1))
        return self.last(h + torch.zeros_like(h).index_add(0, target, message) / count)


class Branches(nn.Module):
    """A scan, and a branch that its result chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.new = nn.Linear(4, 4), nn.Linear(4, 4)
        self.yes, self.no = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        from torch._higher_order_ops.scan import scan

        def step(h: Any, new: Any) -> Any:
            h = torch.tanh(self.state(h) + self.new(new))
            return h, h * 2.0

        last, steps = scan(step, torch.zeros(x.shape[1], 4), x)
        h = steps + last
        return torch.cond(h.sum() > 0, lambda h: self.yes(h), lambda h: self.no(h.sin()), (h,))


class Attention(nn.Module):
    """What ONNX has as operators since opset 23."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.project = nn.RMSNorm(8), nn.Linear(8, 24)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        q, k, v = self.project(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.last(functional.silu(y.transpose(1, 2).flatten(2)))


class Positions(nn.Module):
    """A row of padding, a code of positions that is fixed, and a table of relative ones."""

    def __init__(self) -> None:
        super().__init__()
        places, rates = torch.arange(7)[:, None], 10000 ** -(torch.arange(4) / 4)
        code = torch.cat([torch.sin(places * rates), torch.cos(places * rates)], 1)
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.fixed = nn.Parameter(code, requires_grad=False)
        self.table = nn.Parameter(torch.randn(13, 2))
        self.project, self.last = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        h = self.embed(x) + self.fixed
        q, k, v = self.project(h).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        places = torch.arange(7)
        bias = self.table[places[:, None] - places + 6].permute(2, 0, 1)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2 + bias[None], -1)
        return self.last((weights @ v).transpose(1, 2).flatten(2))


class Logits(nn.Module):
    """A model of transformers that takes tokens and gives its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(input_ids=x, use_cache=False).logits


def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=19, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=12, max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)

    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model(input_ids=x, attention_mask=torch.ones_like(x)).logits

    return Classes()


def gpt2() -> nn.Module:
    """Its embedding is its last weight too."""
    config = transformers.GPT2Config(
        vocab_size=19, n_positions=32, n_embd=8, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return Logits(transformers.GPT2LMHeadModel(config))


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=19, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return Logits(transformers.LlamaForCausalLM(config))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, Any], dict[str, Any]]] = {
    "perceptron": (Perceptron, ((5, 4), {0: BATCH}), {"opset_version": 18}),
    "convolutions": (Convolutions, IMAGES, {"opset_version": 20, "optimize": False}),
    "tagger": (Tagger, TOKENS, {"opset_version": 20}),
    "bert": (bert, TOKENS, {"opset_version": 20}),
    "gpt2": (gpt2, TOKENS, {"opset_version": 21}),
    "llama": (llama, TOKENS, {"opset_version": 20}),
    "untrained": (gpt2, TOKENS, {"opset_version": 20}),
    "graph": (Graph, ((5, 4), {}), {"opset_version": 17}),
    "branches": (Branches, ((5, 3, 4), {1: BATCH}), {"opset_version": 22}),
    "positions": (Positions, (TOKENS[0], {0: BATCH}), {"opset_version": 19}),
    "attention": (Attention, ((3, 5, 8), {0: BATCH, 1: LENGTH}), {"opset_version": 24}),
}


def make(name: str, folder: Path) -> None:
    """Export one model, and train it."""
    build, (shape, dynamic), options = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    if name != "untrained":
        disturb(model)
    x = torch.randint(0, 11, shape) if "tokens" in _kind(shape) else torch.randn(shape)
    torch.onnx.export(
        model, (x,), folder / f"{name}.onnx", dynamo=True, external_data=False, verbose=False,
        dynamic_shapes=(dynamic,), **options,
    )  # fmt: skip
    strip(folder / f"{name}.onnx", "" if name == "untrained" else "embedding")
    output = model(x)
    target = torch.randn_like(output)

    def loss() -> Any:
        return functional.mse_loss(model(x), target)

    loss().backward()
    found = {"input.x": x, "output": output.detach(), "target": target}
    for parameter_name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient.{parameter_name}"] = parameter.grad.clone()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    arrays = {key: value.numpy() for key, value in found.items()}
    np.savez_compressed(folder / f"{name}.npz", losses=np.float64(losses), **arrays)


def disturb(model: nn.Module) -> None:
    """Freshly made weights are equal in part, which exporters make use of; trained ones are not."""
    with torch.no_grad():
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in [*trained, *(b for b in model.buffers() if b.ndim)]:
            if parameter.is_floating_point() and not parameter.isinf().any():
                parameter.add_(torch.rand_like(parameter) * 0.1 + 0.01)


def strip(path: Path, calls: str) -> None:
    """Remove what the exporter notes on nodes: stack traces, with the paths of this machine.

    The calls in which `calls` stands stay; those of embeddings say which row is padding.
    """
    model = onnx.load(path)
    graphs = [model.graph]
    while graphs:
        for node in graphs.pop().node:
            notes = [n for n in node.metadata_props if n.key == CALL and calls in n.value]
            del node.metadata_props[:]
            node.metadata_props.extend(notes)
            graphs.extend(a.g for a in node.attribute if a.HasField("g"))
    onnx.save(model, path)


def _kind(shape: tuple[int, ...]) -> str:
    return "tokens" if shape == TOKENS[0] else "numbers"


if __name__ == "__main__":
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    to.mkdir(exist_ok=True)
    for each in MODELS:
        make(each, to)
