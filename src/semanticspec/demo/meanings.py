"""The frozen values of the demo's problem grammar: what a step means, what a problem is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Operation = Literal[
    "start",
    "gain",
    "lose",
    "double",
    "halve",
    "product",
    "more",
    "fewer",
    "twice",
    "total",
    "difference",
    "final",
]
StyleName = Literal["target", "draft"]

LARGEST_NUMBER = 999


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one reasoning step says, whatever its wording.

    Two steps mean the same exactly when all fields are equal. Numbers are kept *as stated*: a step that says
    `14 + 23 = 38` has the result 38.

    Attributes:
        operation: What is computed.
        operands: The numbers the computation starts from, in canonical order (`(14, 23)` for `14 + 23`).
        result: The stated outcome.
        who: The person whose count is spoken of (the first one for `total` and `difference`).
        item: The plural noun that is counted.
        other: The second person of `more`, `fewer`, `twice`, `total` and `difference`, else empty.
        unit: Of a `product`, what there are several of, "bags" or "friends": the first are bought, the others given
            to, so a step with the wrong one leads astray. Else empty.
        corrects: True for a step that takes back the one before it ("Wait, ...").
    """

    operation: Operation
    operands: tuple[int, ...]
    result: int
    who: str
    item: str
    other: str = ""
    unit: str = ""
    corrects: bool = False

    def expected_result(self) -> int:
        """Returns what the operands really give, for checking a stated result."""
        first = self.operands[0]
        match self.operation:
            case "start" | "final":
                return first
            case "gain" | "more" | "total":
                return first + self.operands[1]
            case "lose" | "fewer" | "difference":
                return first - self.operands[1]
            case "double" | "twice" | "product":
                return first * self.operands[1]
            case "halve":
                return first // self.operands[1]


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem with its only answer and its solution, step by step.

    Attributes:
        text: Story and question.
        answer: The number asked for.
        steps: Meanings of the reasoning steps in the order of the story.
        verbs: For each step the verb the story used, empty where there is none; wordings repeat it, meanings do
            not hold it.
    """

    text: str
    answer: int
    steps: tuple[Meaning, ...]
    verbs: tuple[str, ...]


def same_meaning(first: Meaning | None, second: Meaning | None) -> bool:
    """Says whether two read steps mean the same; a step that could not be read equals nothing."""
    return first is not None and first == second
