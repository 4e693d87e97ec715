"""Models that Keras's guides put together give Keras's numbers."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("models"))
def test_as_keras(name: str) -> None:
    parity.check("models", name, rtol=1e-4, atol=1e-5)
