"""The data classes of the demo's problem grammar: the meaning of a step, and a problem."""

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
        result: The stated result.
        who: The person whose count is stated (the first one for `total` and `difference`).
        item: The plural noun that is counted.
        other: The second person of `more`, `fewer`, `twice`, `total` and `difference`, else empty.
        unit: For a `product`, the noun that is multiplied: "bags" are bought, "friends" are given to, so a step with
            the wrong one is wrong. Else empty.
        corrects: True for a step that corrects the one before it ("Wait, ...").
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
        """Returns the right result of the operands, for checking a stated one."""
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
        verbs: For each step the verb that the story uses, empty if there is none. Wordings repeat it; it is not part
            of the meaning.
    """

    text: str
    answer: int
    steps: tuple[Meaning, ...]
    verbs: tuple[str, ...]


def same_meaning(first: Meaning | None, second: Meaning | None) -> bool:
    """Returns whether two parsed steps mean the same; None, a step that could not be parsed, equals nothing."""
    return first is not None and first == second
