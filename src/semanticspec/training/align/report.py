"""The figures of an alignment, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semanticspec.benchmark.statistics import difference

_FIGURES = {"probability": "Probability that a token is kept", "kept_run": "Tokens kept of a proposal of 8"}


def rows(report: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Returns name -> before, after, change, as texts."""
    before, after = report["before"], report["after"]
    found: dict[str, tuple[str, str, str]] = {}
    if before["acceptance"] and after["acceptance"]:
        for name, title in _FIGURES.items():
            one, other = before["acceptance"][name], after["acceptance"][name]
            found[title] = (f"{one:.3f}", f"{other:.3f}", f"{other / one - 1:+.1%}")
        _, (low, high) = difference(after["acceptance"]["by_answer"], before["acceptance"]["by_answer"])
        found["Change of an answer's mean probability"] = ("", "", f"[{low:+.3f}, {high:+.3f}]")
    if before["num_graded"]:
        shares = [each["right"] / each["num_graded"] for each in (before, after)]
        found["Right answers of the draft itself"] = (
            f"{before['right']} of {before['num_graded']}",
            f"{after['right']} of {after['num_graded']}",
            f"{shares[1] - shares[0]:+.1%}",
        )
    one, other = before["mean_tokens"], after["mean_tokens"]
    found["Tokens of its own answers"] = (f"{one:.0f}", f"{other:.0f}", f"{other / one - 1:+.0%}")
    return found
