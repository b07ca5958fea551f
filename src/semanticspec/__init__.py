"""Semantic-aware speculative decoding: a draft model writes whole reasoning steps, the target keeps those that
mean what it would have said.

    >>> import semanticspec
    >>> pair = semanticspec.load_pair()  # the bundled demo pair
    >>> result = semanticspec.generate(pair, "Mia has 14 pens. Mia buys 23 more. How many pens does Mia have?")
    >>> print(result.text)

Importing this package loads no torch; models are loaded by `load_pair`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semanticspec.config import DecodingConfig, RuleConfig, preset
from semanticspec.errors import SemanticSpecError
from semanticspec.records import Event, Result, Sampling, Segment, Stats

if TYPE_CHECKING:
    from semanticspec.decoding.generate import decode, generate, generate_async
    from semanticspec.decoding.pair import Pair
    from semanticspec.loading import load_pair

__version__ = "0.1.0"
__all__ = [
    "DecodingConfig",
    "Event",
    "Pair",
    "Result",
    "RuleConfig",
    "Sampling",
    "Segment",
    "SemanticSpecError",
    "Stats",
    "__version__",
    "decode",
    "generate",
    "generate_async",
    "load_pair",
    "preset",
]

_LAZY = {
    "decode": "semanticspec.decoding.generate",
    "generate": "semanticspec.decoding.generate",
    "generate_async": "semanticspec.decoding.generate",
    "load_pair": "semanticspec.loading",
    "Pair": "semanticspec.decoding.pair",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'semanticspec' has no attribute {name!r}")
