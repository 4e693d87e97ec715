"""RNN, GRU and LSTM in NumPy, after ONNX's formulas.

The reference evaluator's own know one direction, no sequence lengths and no other activation
functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Function = Callable[[Any], Any]


def _function(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Function:
    def positive(x: Any) -> Any:
        return np.maximum(x, 0)

    if name in ("Affine", "HardSigmoid", "ScaledTanh"):
        hard = name == "HardSigmoid"
        alpha = next(alphas, 0.2 if hard else 1.0)
        beta = next(betas, 0.5 if hard else 1.0 if name == "ScaledTanh" else 0.0)
        if hard:
            return lambda x: np.clip(alpha * x + beta, 0, 1)
        if name == "Affine":
            return lambda x: alpha * x + beta
        return lambda x: alpha * np.tanh(beta * x)
    if name in ("LeakyRelu", "Elu", "ThresholdedRelu"):
        alpha = next(alphas, 0.01 if name == "LeakyRelu" else 1.0)
        if name == "LeakyRelu":
            return lambda x: np.where(x < 0, alpha * x, x)
        if name == "Elu":
            return lambda x: np.where(x < 0, alpha * (np.exp(x) - 1), x)
        return lambda x: np.where(x > alpha, x, 0)
    functions: dict[str, Function] = {
        "Tanh": np.tanh,
        "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "Relu": positive,
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Softplus": lambda x: np.log1p(np.exp(x)),
    }
    return functions[name]


class _Recurrent(OpRun):
    op_domain = ""
    defaults: tuple[str, ...] = ("Tanh",)

    def _run(
        self,
        x: Any,
        w: Any,
        r: Any,
        b: Any = None,
        lengths: Any = None,
        h0: Any = None,
        c0: Any = None,
        p: Any = None,
        **attributes: Any,
    ) -> Any:
        a: Any = {k: v for k, v in attributes.items() if v is not None}
        direction, layout = a.get("direction", "forward"), a.get("layout", 0)
        clip = a.get("clip", np.inf)
        backwards = {"forward": [False], "reverse": [True]}.get(direction, [False, True])
        names = list(a.get("activations", [])) or list(self.defaults) * len(backwards)
        alphas, betas = iter(a.get("activation_alpha", [])), iter(a.get("activation_beta", []))
        raw = [_function(name, alphas, betas) for name in names]
        each = len(self.defaults)
        # As ONNX Runtime: what enters LSTM's last function is not clipped.
        functions = [
            f if i % each == 2 else lambda z, f=f: f(np.clip(z, -clip, clip))
            for i, f in enumerate(raw)
        ]
        if layout:
            x = np.swapaxes(x, 0, 1)
        length, batch, _ = x.shape
        hidden = r.shape[2]

        def first(state: Any, d: int) -> Any:
            if state is None:
                return np.zeros((batch, hidden), x.dtype)
            return state[:, d] if layout else state[d]

        y = np.zeros((length, len(backwards), batch, hidden), x.dtype)
        last_h, last_c = [], []
        for d, back in enumerate(backwards):
            h, c = first(h0, d), first(c0, d)
            bias = np.zeros((2, w.shape[1]), x.dtype) if b is None else b[d].reshape(2, -1)
            peepholes = None if p is None else p[d].reshape(3, hidden)
            for t in reversed(range(length)) if back else range(length):
                inside = np.ones(batch, bool) if lengths is None else t < lengths
                new_h, new_c = self.step(
                    x[t], h, c, w[d], r[d], bias, peepholes, functions[each * d : each * (d + 1)], a
                )
                y[t, d] = np.where(inside[:, None], new_h, 0)
                h, c = np.where(inside[:, None], new_h, h), np.where(inside[:, None], new_c, c)
            last_h.append(h)
            last_c.append(c)
        axis = 1 if layout else 0
        states = [np.stack(last_h, axis), np.stack(last_c, axis)]
        y = np.transpose(y, (2, 0, 1, 3)) if layout else y
        return (y, *states)[: len(self.onnx_node.output)]

    def step(
        self,
        x: Any,
        h: Any,
        c: Any,
        w: Any,
        r: Any,
        bias: Any,
        peepholes: Any,
        functions: Sequence[Function],
        attributes: Any,
    ) -> tuple[Any, Any]:
        raise NotImplementedError


class RNN(_Recurrent):
    """One direction only in the original."""

    def step(
        self, x: Any, h: Any, c: Any, w: Any, r: Any, bias: Any, peepholes: Any, functions: Any,
        attributes: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        return functions[0](x @ w.T + h @ r.T + bias.sum(0)), c


class GRU(_Recurrent):
    """One direction only in the original."""

    defaults = ("Sigmoid", "Tanh")

    def step(
        self, x: Any, h: Any, c: Any, w: Any, r: Any, bias: Any, peepholes: Any, functions: Any,
        attributes: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        f, g = functions
        xz, xr, xh = np.split(x @ w.T + bias[0], 3, axis=1)
        rz, rr, rh = np.split(r, 3)
        bz, br, bh = np.split(bias[1], 3)
        z, reset = f(xz + h @ rz.T + bz), f(xr + h @ rr.T + br)
        if attributes.get("linear_before_reset", 0):
            new = g(xh + reset * (h @ rh.T + bh))
        else:
            new = g(xh + (reset * h) @ rh.T + bh)
        return (1 - z) * new + z * h, c


class LSTM(_Recurrent):
    """One direction only in the original."""

    defaults = ("Sigmoid", "Tanh", "Tanh")

    def step(
        self, x: Any, h: Any, c: Any, w: Any, r: Any, bias: Any, peepholes: Any, functions: Any,
        attributes: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        f, g, shown = functions
        i, o, forget, new = np.split(x @ w.T + h @ r.T + bias.sum(0), 4, axis=1)
        pi, po, pf = np.zeros((3, 1)) if peepholes is None else peepholes
        i = f(i + pi * c)
        forget = 1 - i if attributes.get("input_forget", 0) else f(forget + pf * c)
        c = forget * c + i * g(new)
        return f(o + po * c) * shown(c), c


CORRECTED = [RNN, GRU, LSTM]
