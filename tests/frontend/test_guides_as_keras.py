"""What Keras's guides do runs under their names, and gives Keras's numbers."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("guides"))
def test_guides(name: str) -> None:
    parity.check("guides", name, rtol=1e-4, atol=1e-4)
