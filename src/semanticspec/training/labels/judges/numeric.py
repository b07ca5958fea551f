"""The judge `numeric` for mathematical text: compares equations and numbers, and ignores everything else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from fractions import Fraction

from semanticspec.text.chat import THINK_END
from semanticspec.training.labels.judges.base import ends_thinking
from semanticspec.training.labels.judges.equations import Token, equations_of, implied_equation, tokens_of

_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split(),
        start=2,
    )
} | {
    word: str(10 * tens)
    for tens, word in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), start=3)
}
_FACTORS = (
    (re.compile(r"\b(?:doubl\w*|twice)\b"), Fraction(2)),
    (re.compile(r"\b(?:half|halv\w*)\b"), Fraction(1, 2)),
    (re.compile(r"\b(?:tripl\w*|thrice)\b"), Fraction(3)),
)
_SUPERSCRIPTS = str.maketrans({"²": "^2", "³": "^3"})

# Applied in this order.
_LATEX: tuple[tuple[str, str], ...] = (
    (r"\\\\", " ; "),
    (r"\\(?:left|right|bigl|bigr|big|quad|qquad|displaystyle)(?![a-z])|\\[,;!: ]|(?<=\d)\{,\}(?=\d)", ""),
    (r"\\(?:times|cdot|ast)(?![a-z])", " * "),
    (r"\\div(?![a-z])", " / "),
    (r"\\approx(?![a-z])|&", " "),
    (r"\\([$%#])", r"\1"),
    (r"\\[()\[\]]", " "),
    (r"\^\{([^{}]*)\}", r"^(\1)"),
    (r"\\[dtc]?frac\s*(?:(\d)\s*(\d)|\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\})", r" (\1\3/\2\4)"),
)
# Applied until nothing changes, because they nest.
_LATEX_NESTED: tuple[tuple[str, str], ...] = (
    (r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))"),
    (r"\\(?:text\w*|math\w*|boxed|fbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
)
_PLAIN: tuple[tuple[str, str], ...] = (
    (r"\\[a-z]+|[{}]", " "),
    (r"<<[^<>]*>>", ""),  # calculator annotations of GSM8K
    (
        r"(?m)^\s*(?:[*•#>-]+\s+)*(?:(?:step\s*)?\d+\s*[.):]\s+(?=\S))?",
        "",
    ),  # markers of list items
    (r"\bstep\s+\d+\b", " step "),
    (r"(?<=\d)\s*\*\*\s*(?=\d)", "^"),
    (r"\*\*|__|`", " "),
    (r"-\s*[$€£¥]\s*(?=[\d.])", "-"),
    (r"[$€£¥]", " "),
    (r"[−–]", "-"),
    (r"[×·∙⋅]", " * "),
    (r"÷", " / "),
    (r"⁄", "/"),
    (r"<=|>=|=>|->|[≤≥≠→⇒—]", " ; "),
    (r"≈|==+", " = "),
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\b(?:is |are )?equals?(?: to)?\b", " = "),
    (r"\bplus\b", " + "),
    (r"\bminus\b", " - "),
    (r"\b(?:multiplied by|times)(?= ?[\d(.])", " * "),
    (r"\bdivided by\b", " / "),
    (r"(%|percent|per cent|\d/\d+\)*) of (?:the )?(?=[\d(])", r"\1 * "),
    (r"\bhalf of (?:the )?(?=[\d(])", " 1/2 * "),
    (r"(?<=[\w)%])\s+x\s+(?=[\d(.])|(?<=[\d)])x(?=[\d(])", " * "),
    (r"(?<=[a-z0-9])-(?=[a-z]{2})|(?<=[a-z]{2})-(?=\w)", " "),
    (r"/\s*(?=[a-z]{2})|(?<=[a-z])/(?=[a-z])", " "),
    (r"(?<![\d./^*])\b(\d+)\s+\(?(\d+)/(\d+)\b\)?", r"(\1+\2/\3)"),  # three and a half: 3 1/2
)


class NumericJudge:
    """Segments mean the same if they state the same set of equations or, without equations, the same set of numbers.

    Words can state an equation too: three numbers of which the last one is the sum, difference, product or quotient
    of the others (`4 and 3 make 7`). Segments without numbers mean the same if their words are equal, ignoring case
    and punctuation. Who or what is counted is ignored; use `numeric+nli` where that matters.
    """

    name = "numeric"
    identity = ""

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:  # noqa: ARG002
        """Returns the figures of each segment, or else its words, and whether it ends the thinking."""
        return [(figures_of(text) or words_of(text), ends_thinking(text)) for text in segments]


def figures_of(text: str) -> frozenset[Hashable] | None:
    """Returns the equations that a text states, or else its numbers; None if it has neither."""
    plain = normalize(text)
    tokens = tokens_of(plain)
    if equations := equations_of(tokens):
        return frozenset(equations)
    numbers = _numbers(tokens)
    factor = next((factor for pattern, factor in _FACTORS if pattern.search(plain)), None)
    implied = implied_equation(numbers, factor)
    return frozenset([implied]) if implied else frozenset(numbers) or None


def words_of(text: str) -> str:
    """Returns the words of a text in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.replace(THINK_END, " ").lower()))


def normalize(text: str) -> str:
    r"""Rewrites text so that equal arithmetic is written equally.

    Removes currency signs, thousands separators, LaTeX markup, calculator annotations and list markers; turns
    `\frac{1}{2}`, `×`, `x`, "plus" and "50 % of" into operators, and number words into digits.
    """
    plain = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text.replace(THINK_END, " ").translate(_SUPERSCRIPTS))
    plain = unicodedata.normalize("NFKC", plain).lower()
    for pattern, replacement in _LATEX:
        plain = re.sub(pattern, replacement, plain)
    before = ""
    while before != plain:
        before = plain
        for pattern, replacement in _LATEX_NESTED:
            plain = re.sub(pattern, replacement, plain)
    plain = re.sub(r"[a-z]+", lambda word: _NUMBER_WORDS.get(word.group(), word.group()), plain)
    for pattern, replacement in _PLAIN:
        plain = re.sub(pattern, replacement, plain)
    return plain


def _numbers(tokens: Sequence[Token]) -> list[Fraction]:
    """Returns all numbers in order; a fraction such as 1/2 is one number, and a repeated final result counts once."""
    found: list[Fraction] = []
    place = 0
    while place < len(tokens):
        kinds = "".join(token.kind for token in tokens[place : place + 5])
        values = [token.value for token in tokens[place : place + 5]]
        if kinds == "N+N/N" and values[4]:  # 3 1/2
            found.append(values[0] + values[2] / values[4])
            place += 5
            continue
        if kinds.startswith("N/N") and values[2]:
            found.append(values[0] / values[2])
            place += 3
            continue
        if tokens[place].kind == "N":
            found.append(tokens[place].value)
        place += 1
    while len(found) > 3 and found[-1] == found[-2]:
        found.pop()
    return found
