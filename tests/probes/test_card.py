"""Cards: which values are refused."""

from __future__ import annotations

from typing import Any

import pytest

from semanticspec.errors import ConfigError
from tests.support.collecting import (
    make_card,
)


@pytest.mark.parametrize("changes", [{"pooling": "none"}, {"layer": 3}, {"layer": 0}])
def test_cards_of_states_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"pooling is 'none'|layer is \d; expected -1 .* layers 1 to 2"):
        make_card(**changes)
