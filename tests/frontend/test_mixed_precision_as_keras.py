"""Mixed precision: the dtypes, losses and scales that Keras gives."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("mixed_precision"))
def test_as_keras(name: str) -> None:
    parity.check("mixed_precision", name, rtol=1e-2, atol=5e-3)
