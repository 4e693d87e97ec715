"""`fit` and what is around it: the logs and weights that Keras gives."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("fit"))
def test_as_keras(name: str) -> None:
    parity.check("fit", name, rtol=1e-4, atol=1e-5)
