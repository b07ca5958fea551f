"""Describes how saved settings differ from new ones, for the error that refuses to mix them."""

from __future__ import annotations

import json
from typing import Any

from semanticspec.errors import shortened

_MAX_DIFFERENCES = 4


def as_json(value: Any) -> Any:
    """Turns tuples into lists and so on, as reading a file back does."""
    return json.loads(json.dumps(value))


def differences(saved: Any, new: Any, path: str = "") -> list[str]:
    """Describes each value that both have and that differs.

    Args:
        path: name of the values, put before their keys; one that ends in ": " is put before them as it is.
    """
    if isinstance(saved, dict) and isinstance(new, dict):
        joint = "" if not path or path.endswith(": ") else "."
        shared = sorted(saved.keys() & new.keys())
        return [
            text for name in shared for text in differences(saved[name], new[name], f"{path}{joint}{name}")
        ]
    return [] if saved == new else [f"{path} is {_short(saved)} in the folder and {_short(new)} in this run"]


def listed(found: list[str]) -> str:
    """Joins differences; of many, only the first are named."""
    more = len(found) - _MAX_DIFFERENCES
    return "; ".join(found[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _short(value: Any) -> str:
    return shortened(json.dumps(value, ensure_ascii=False))
