"""Points at which a derivative does not exist, or is reached by 0 * infinity, and PyTorch's words.

`make_torch_conventions.py` evaluates the words and stores the gradients; the compiler's tests
compare the rules with them. Needs neither onnxtape nor PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

INF = np.inf


class Fixed:
    """A floating-point input that is not differentiated."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)


@dataclass(frozen=True)
class Convention:
    """One operator at such a point.

    Attributes:
        op: of ONNX; its first output is meant, weighted by 1, 2, 3, ... and summed.
        inputs: lists and numbers are differentiated, arrays and what is Fixed are not.
        torch: the same in PyTorch, of the inputs x, y, z; `F` is torch.nn.functional.
    """

    name: str
    op: str
    inputs: list[Any]
    torch: str
    attributes: dict[str, Any] = field(default_factory=dict)

    def sources(self) -> list[int]:
        return [i for i, x in enumerate(self.inputs) if isinstance(x, (list, float))]


def ints(numbers: Any) -> Any:
    return np.asarray(numbers, np.int64)


def _image(rows: list[list[float]]) -> list[Any]:
    return [[rows]]


AROUND = [-1.0, 0.0, 1.0]
KINKS = [-4.0, -3.0, 0.0, 3.0, 4.0]
HALVES = [-1.0, -0.5, 0.0, 0.5, 1.0]
ZEROS = [[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 4.0]]
LAST = ints([-1])
TIES = _image(
    [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [2.0, 3.0, 5.0, 5.0], [3.0, 3.0, 5.0, 5.0]]
)
#: Points of an image of 3 x 3: pixels, borders, corners, halves, and beyond, as (across, down).
POINTS = [[[[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [-0.5, 0.5], [-1.5, 3.0]]]]
PIXELS = _image([[1.0, 2.0, 4.0], [3.0, -1.0, 0.5], [2.5, 6.0, -2.0]])


def _grid(mode: str, padding: str, align: int) -> Convention:
    names = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
    words = f"mode='{names[mode]}', padding_mode='{padding}', align_corners={bool(align)}"
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
    name = f"grid_sample {mode} {padding} {align}"
    grid: Any = Fixed(POINTS) if mode == "nearest" else POINTS
    return Convention(
        name, "GridSample", [PIXELS, grid], f"F.grid_sample(x, y, {words})", attributes
    )


CONVENTIONS = [
    # Activations.
    Convention("relu", "Relu", [AROUND], "F.relu(x)"),
    Convention("leaky relu", "LeakyRelu", [AROUND], "F.leaky_relu(x, 0.1)", {"alpha": 0.1}),
    Convention("prelu", "PRelu", [AROUND, [0.25]], "F.prelu(x, y)"),
    Convention("elu", "Elu", [AROUND], "F.elu(x, 0.5)", {"alpha": 0.5}),
    Convention("selu", "Selu", [AROUND], "F.selu(x)"),
    Convention("celu", "Celu", [AROUND], "F.celu(x, 2.0)", {"alpha": 2.0}),
    Convention("threshold", "ThresholdedRelu", [[0.0, 1.0, 2.0]], "F.threshold(x, 1.0, 0.0)"),
    Convention("hard sigmoid", "HardSigmoid", [KINKS], "F.hardsigmoid(x)",
               {"alpha": 1 / 6, "beta": 0.5}),
    Convention("hard swish", "HardSwish", [KINKS], "F.hardswish(x)"),
    Convention("soft shrink", "Shrink", [HALVES], "F.softshrink(x, 0.5)",
               {"lambd": 0.5, "bias": 0.5}),
    Convention("hard shrink", "Shrink", [HALVES], "F.hardshrink(x, 0.5)", {"lambd": 0.5}),
    Convention("softsign", "Softsign", [[0.0]], "F.softsign(x)"),
    # Far out: no NaN from what overflows.
    Convention("softplus", "Softplus", [[100.0, -100.0]], "F.softplus(x)"),
    Convention("mish", "Mish", [[0.0, 100.0]], "F.mish(x)"),
    Convention("gelu", "Gelu", [[0.0, 40.0, -40.0]], "F.gelu(x)"),
    Convention("sigmoid", "Sigmoid", [[0.0, 1000.0, -1000.0]], "torch.sigmoid(x)"),
    Convention("tanh", "Tanh", [[0.0, 1000.0, -1000.0]], "torch.tanh(x)"),
    # Arithmetic.
    Convention("abs", "Abs", [AROUND], "x.abs()"),
    Convention("maximum", "Max", [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]], "torch.maximum(x, y)"),
    Convention("minimum", "Min", [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]], "torch.minimum(x, y)"),
    Convention("clamp", "Clip", [[-2.0, *AROUND, 2.0], -1.0, 1.0], "torch.clamp(x, y, z)"),
    Convention("clamp to a point", "Clip", [[-2.0, 1.0, 2.0], 1.0, 1.0], "torch.clamp(x, y, z)"),
    Convention("clamp crossed", "Clip", [[-2.0, *AROUND, 2.0], 1.0, -1.0], "torch.clamp(x, y, z)"),
    Convention("clamp low", "Clip", [[-2.0, 1.0, 2.0], 1.0], "torch.clamp(x, y)"),
    Convention("clamp high", "Clip", [[-2.0, 1.0, 2.0], None, 1.0], "torch.clamp(x, max=z)"),
    Convention("power 0", "Pow", [[0.0, 2.0], Fixed(0.0)], "x ** 0"),
    Convention("power 1", "Pow", [[0.0, 2.0], Fixed(1.0)], "x ** 1"),
    Convention("power 2", "Pow", [[0.0, 2.0], Fixed(2.0)], "x ** 2"),
    Convention("power 0.5", "Pow", [[0.0, 4.0], Fixed(0.5)], "x ** 0.5"),
    Convention("power -1", "Pow", [[0.0, 4.0], Fixed(-1.0)], "x ** -1.0"),
    Convention("power", "Pow",
               [[0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0], [0.0, 0.5, 1.0, 2.0, -1.0, 0.0, 3.0]],
               "torch.pow(x, y)"),
    Convention("power of a negative base", "Pow", [[-2.0, -2.0, -2.0], [0.0, -1.0, 0.5]],
               "torch.pow(x, y)"),
    Convention("power of zero", "Pow", [[0.0, 0.0], [-1.0, -2.0]], "torch.pow(x, y)"),
    Convention("power of the number 0", "Pow", [Fixed(0.0), [0.0, 1.0, 2.0, -1.0]],
               "torch.pow(0.0, y)"),
    Convention("fmod", "Mod", [[5.0, -5.0, 6.0, -6.0, 0.0], [3.0] * 5], "torch.fmod(x, y)",
               {"fmod": 1}),
    Convention("sqrt", "Sqrt", [[0.0, 4.0]], "x.sqrt()"),
    Convention("log", "Log", [[0.0, -1.0]], "x.log()"),
    Convention("reciprocal", "Reciprocal", [[0.0]], "x.reciprocal()"),
    Convention("div", "Div", [[1.0, 0.0], [0.0, 0.0]], "x / y"),
    Convention("asin", "Asin", [[1.0, -1.0]], "x.asin()"),
    Convention("acos", "Acos", [[1.0, -1.0]], "x.acos()"),
    Convention("acosh", "Acosh", [[1.0]], "x.acosh()"),
    Convention("atanh", "Atanh", [[1.0, -1.0]], "x.atanh()"),
    Convention("where", "Where", [np.asarray([True, False]), [1.0, 2.0], [3.0, INF]],
               "torch.where(x, y, z)"),
    # Reductions.
    Convention("amax", "ReduceMax", [[[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]], LAST], "x.amax(-1)"),
    Convention("amin", "ReduceMin", [[[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]], LAST], "x.amin(-1)",
               {"keepdims": 0}),
    Convention("norm 2", "ReduceL2", [[[0.0, 0.0], [3.0, 4.0]], LAST],
               "torch.linalg.vector_norm(x, 2, dim=-1)"),
    Convention("norm 1", "ReduceL1", [[[0.0, 0.0], [3.0, -4.0]], LAST],
               "torch.linalg.vector_norm(x, 1, dim=-1)"),
    Convention("prod", "ReduceProd", [ZEROS, LAST], "x.prod(-1)"),
    Convention("prod of all", "ReduceProd", [ZEROS], "x.prod()"),
    Convention("logsumexp", "ReduceLogSumExp", [[[0.0, -INF], [800.0, 0.0]], LAST],
               "x.logsumexp(-1)"),
    Convention("log of a sum", "ReduceLogSum", [[[0.0, 0.0], [1.0, 0.0]], LAST], "x.sum(-1).log()"),
    Convention("cumprod", "CumProd", [ZEROS, ints(1)], "x.cumprod(1)"),
    Convention("cumprod reversed", "CumProd", [ZEROS, ints(1)], "x.flip(1).cumprod(1).flip(1)",
               {"reverse": 1}),
    Convention("softmax", "Softmax", [[[0.0, -INF, 1.0], [900.0, 0.0, -900.0]]],
               "x.softmax(-1)"),
    Convention("log softmax", "LogSoftmax", [[[0.0, 1000.0, -1000.0]]], "x.log_softmax(-1)"),
    Convention("norm of zeros", "LpNormalization", [[[3.0, 4.0], [1.0, 0.0]]],
               "F.normalize(x, dim=-1)"),
    # Selections: the first of equals, where PyTorch says so.
    Convention("topk", "TopK", [[[1.0, 1.0], [2.0, 3.0]], ints([1])], "x.topk(1)[0]"),
    Convention("sort", "TopK", [[[2.0, 1.0, 2.0, 1.0]], ints([4])],
               "(x.sort(descending=True, stable=True)[0])"),
    Convention("gather twice", "Gather", [AROUND, ints([0, 0, 2])], "x[y]"),
    Convention("scatter max", "ScatterElements",
               [[1.0, 2.0, 3.0], ints([0, 0, 1, 1, 2]), [1.0, 1.0, 5.0, 2.0, 0.0]],
               "x.scatter_reduce(0, y, z, 'amax')", {"reduction": "max"}),
    Convention("scatter min", "ScatterND",
               [[1.0, 2.0, 3.0], ints([[0], [0], [1], [1], [2]]), [1.0, 1.0, 2.0, 5.0, 0.0]],
               "x.scatter_reduce(0, y[:, 0], z, 'amin')", {"reduction": "min"}),
    Convention("scatter mul", "ScatterElements",
               [[2.0, 0.0, 3.0, 0.0], ints([0, 0, 1, 1, 2, 2, 3]),
                [0.0, 4.0, 5.0, 2.0, 0.0, 0.0, 0.0]],
               "x.scatter_reduce(0, y, z, 'prod')", {"reduction": "mul"}),
    # Pooling: the first maximum of a window, overlapping ones too.
    Convention("max pool", "MaxPool", [TIES], "F.max_pool2d(x, 2)",
               {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Convention("max pool, overlapping", "MaxPool", [TIES], "F.max_pool2d(x, 3, 1, 1)",
               {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Convention("max pool of a row", "MaxPool", [[TIES[0][0]]], "F.max_pool1d(x, 2, 1)",
               {"kernel_shape": [2]}),
    Convention("max pool over everything", "GlobalMaxPool", [TIES], "F.adaptive_max_pool2d(x, 1)"),
    Convention("norm pool", "LpPool", [_image([[3.0, 4.0, 0.0, 1.0], [0.0, 0.0, 2.0, 0.0]])],
               "F.lp_pool2d(x, 2, 2)", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    # Sampling at whole pixels, on the border and beyond it.
    *[
        _grid(mode, padding, align)
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for align in (0, 1)
    ],
    # Losses.
    Convention("nll, one ignored", "NegativeLogLikelihoodLoss",
               [[[1.0, 2.0], [3.0, 4.0]], ints([0, 1])], "F.nll_loss(x, y, ignore_index=0)",
               {"ignore_index": 0}),
    Convention("nll, all ignored", "NegativeLogLikelihoodLoss",
               [[[1.0, 2.0], [3.0, 4.0]], ints([0, 0])], "F.nll_loss(x, y, ignore_index=0)",
               {"ignore_index": 0}),
    Convention("cross entropy, all ignored", "SoftmaxCrossEntropyLoss",
               [[[1.0, 2.0], [3.0, 4.0]], ints([0, 0])], "F.cross_entropy(x, y, ignore_index=0)",
               {"ignore_index": 0}),
    Convention("cross entropy, no weight", "SoftmaxCrossEntropyLoss",
               [[[1.0, 2.0], [3.0, 4.0]], ints([0, 0]), Fixed([0.0, 1.0])],
               "F.cross_entropy(x, y, weight=z)"),
]  # fmt: skip

#: The same for functions of `ot.ops` that are made of several operators.
FUNCTIONS = [
    Convention("arctan2", "arctan2", [[0.0, 0.0, 1.0, -1.0], [0.0, 1.0, 0.0, 0.0]],
               "torch.atan2(x, y)"),
    Convention("hypot", "hypot", [[0.0, 3.0], [0.0, 4.0]], "torch.hypot(x, y)"),
    Convention("norm of a vector", "norm", [[0.0, 0.0]], "torch.linalg.norm(x)"),
    Convention("largest norm", "norm", [[[2.0, 2.0], [3.0, -4.0]]],
               "torch.linalg.vector_norm(x, ord=torch.inf, dim=-1)", {"ord": INF, "axis": -1}),
    Convention("logaddexp", "logaddexp", [[0.0, -INF, 1.0], [0.0, 0.0, -INF]],
               "torch.logaddexp(x, y)"),
    Convention("relu6", "relu6", [[-1.0, 0.0, 3.0, 6.0, 7.0]], "F.relu6(x)"),
    Convention("hard tanh", "hard_tanh", [[-2.0, *AROUND, 2.0]], "F.hardtanh(x)"),
    Convention("hard silu", "hard_silu", [KINKS], "F.hardswish(x)"),
    Convention("hard sigmoid function", "hard_sigmoid", [KINKS], "F.hardsigmoid(x)"),
    Convention("clip", "clip", [[-2.0, *AROUND, 2.0]], "x.clamp(-1, 1)",
               {"x_min": -1.0, "x_max": 1.0}),
    Convention("standard deviation", "std", [[[1.0, 1.0], [1.0, 2.0]]], "x.std(-1, correction=0)",
               {"axis": -1}),
    Convention("product", "prod", [ZEROS], "x.prod(-1)", {"axis": -1}),
    Convention("log sigmoid", "log_sigmoid", [[0.0, 1000.0, -1000.0]], "F.logsigmoid(x)"),
    Convention("silu", "silu", [[0.0, 1000.0, -1000.0]], "F.silu(x)"),
    Convention("sorted", "sort", [[1.0, 1.0, 0.0]], "x.sort(stable=True)[0]"),
    Convention("rsqrt", "rsqrt", [[0.0, 4.0]], "x.rsqrt()"),
    Convention("power of numbers", "power", [[0.0, 0.0, 0.0, 2.0], [0.0, 1.0, 2.0, 0.0]],
               "x.pow(y)"),
]  # fmt: skip
