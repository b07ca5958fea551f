"""The demo's grammar in one place: word problems, their solutions in words, and the exact way back.

The grammar is the oracle of the demo: since every step can be read back to its meaning, "the same thing in other
words" is decided exactly, without a second model.
"""

from __future__ import annotations

from semanticspec.demo.meanings import Meaning, Operation, Problem, StyleName, same_meaning
from semanticspec.demo.parsing import answer_of, read_problem, read_step
from semanticspec.demo.stories import Split, make_problem, problems, split_of
from semanticspec.demo.traces import Piece, write_step, write_trace

__all__ = [
    "Meaning",
    "Operation",
    "Piece",
    "Problem",
    "Split",
    "StyleName",
    "answer_of",
    "make_problem",
    "problems",
    "read_problem",
    "read_step",
    "same_meaning",
    "split_of",
    "write_step",
    "write_trace",
]
