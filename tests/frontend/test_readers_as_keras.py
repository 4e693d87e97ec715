"""Programs that readers of Keras's guides write next give Keras's numbers."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("readers"))
def test_as_keras(name: str) -> None:
    parity.check("readers", name, rtol=1e-4, atol=2e-5)
