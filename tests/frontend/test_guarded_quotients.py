"""Quotients of which a Where keeps those alone whose divisor is not 0, as sinc is exported."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

import onnxtape as ot

X = np.array([-1.5, 0.0, 0.25, 0.0, 2.0], "f")

SINC = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N] x) => (float[N] y) <float[1] w = {1.0}, float pi = {3.1415927}, float zero = {0.0},
  float one = {1.0}> {
  v = Mul(x, w)
  p = Mul(v, pi)
  n = Sin(p)
  q = Div(n, p)
  test = Equal(v, zero)
  y = Where(test, one, q)
}"""

# The divisor itself is tested, inside a branch; the quotients are used by nothing else.
SAFE = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N] x) => (float[N] y) <float[1] w = {2.0}, float zero = {0.0}> {
  yes = Constant<value = bool {1}>()
  y = If(yes) <
    then_branch = a () => (float[N] r) {
      v = Mul(x, w)
      t = Equal(v, zero)
      s = Mul(w, w)
      d = Div(s, v)
      r = Where(t, v, d)
    },
    else_branch = b () => (float[N] l) { l = Identity(x) }
  >
}"""


@pytest.mark.parametrize("compiled", [False, True])
def test_sinc_has_a_gradient_at_zero(compiled: bool) -> None:
    """d sinc(w x) / dw at w = 1 is cos(pi x) - sinc(x), 0 where x is 0."""
    model = ot.load_onnx(parser.parse_model(SINC))
    y, (by_w,) = gradients(model, compiled)
    np.testing.assert_allclose(y, np.sinc(X), rtol=1e-5, atol=1e-7)
    expected = (np.cos(np.pi * X) - np.sinc(X)).sum()
    np.testing.assert_allclose(by_w, [expected], rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_quotient_in_a_branch_is_guarded(compiled: bool) -> None:
    """w w / (w x) where x is not 0, else w x: the gradient by w is 1 / x, else x."""
    model = ot.load_onnx(parser.parse_model(SAFE))
    y, (by_w,) = gradients(model, compiled)
    kept = np.where(X == 0, 1, X)
    np.testing.assert_allclose(y, np.where(X == 0, 0, 2 / kept), rtol=1e-6)
    np.testing.assert_allclose(by_w, [np.where(X == 0, 0, 1 / kept).sum()], rtol=1e-5)


def gradients(model: ot.Model, compiled: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    def step(x: ot.Tensor) -> tuple[ot.Tensor, list[ot.Tensor]]:
        with ot.GradientTape() as tape:
            y = model(x)
        return y, tape.gradient(y, model.trainable_variables)

    y, found = (ot.function(step, fallback="error") if compiled else step)(X)
    return np.asarray(y), [np.asarray(g) for g in found]
