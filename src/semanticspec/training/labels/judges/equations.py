"""Extracts equations from text in a canonical form: equal computations become equal values.

`14 + 23 = 37`, `23 + 14 = 37` and `37 = 14 + 23` are one equation; `14 - 23` and `23 - 14` are two. Equations are
not evaluated, so the wrong `14 + 23 = 38` is kept as it is stated. Of a chain `3 * 4 + 2 = 12 + 2 = 14` only the
two ends count, so that intermediate results make no difference.

Python's own `ast.parse` does the parsing; it executes nothing. sympy and math-verify are no alternatives: sympy's
parser evaluates its input as code, which is unsafe for the output of a model, and both compare *values*, while
the meaning of a step is what is computed from what: `4 + 3 = 7` and `9 - 2 = 7` must differ.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Form = Any
"""A canonical expression: a `Fraction`, the letter of a variable, or a nested tuple that starts with +, * or ^."""

# Letters that count as variables beside an operator; the others are more often units (5 m, 3 h).
_VARIABLES = frozenset("abcknpqrtuvwxyz")
_MAX_TOKENS = 200  # of an equation; bounds the parser's recursion
_TOKEN = re.compile(  # the number of digits is bounded because Python refuses to parse very long numbers
    r"(?P<number>\d{1,99}(?:\.\d{1,99})?|\.\d{1,99})(?P<percent>\s*(?:%|percent\b|per cent\b))?"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|(?P<operator>[-+*/^()=])|(?P<stop>\S)"
)
_UNIT = re.compile(r"(?<=[NV)])W{1,3}(?=[-+*/^=)])")
_EQUATION = re.compile(r"[NV(][NV()+\-*/^]*(?:=-?[NV(][NV()+\-*/^]*)+")


@dataclass(frozen=True, slots=True)
class Token:
    """A token of normalized text.

    Attributes:
        kind: N (number), V (variable), W (word), | (end of a clause), or the operator itself.
        glued: no white space precedes the token.
    """

    kind: str
    text: str
    value: Fraction = Fraction(0)
    glued: bool = False


@dataclass(frozen=True, slots=True)
class Equation:
    """Two canonical sides; a compound expression comes first."""

    left: Form
    right: Form


def tokens_of(text: str) -> list[Token]:
    """Splits normalized text into tokens; `-5` is a number where it cannot be a subtraction."""
    found: list[Token] = []
    end = 0
    for match in _TOKEN.finditer(text):
        glued = bool(found) and match.start() == end
        end = match.end()
        if number := match["number"]:
            value = Fraction(number) / (100 if match["percent"] else 1)
            if _is_sign(found, glued):
                value, glued = -value, found.pop().glued
            found.append(Token("N", number, value, glued))
        elif word := match["word"]:
            found.append(Token("V" if word in _VARIABLES else "W", word, glued=glued))
        else:
            found.append(Token(match["operator"] or "|", match.group(), glued=glued))
    return found


def _is_sign(before: Sequence[Token], glued: bool) -> bool:
    """Returns whether the last token is a minus sign of the number that follows, not a subtraction."""
    if not before or before[-1].kind != "-" or not glued:
        return False
    return (
        len(before) == 1 or before[-2].kind in "|=(+-*/^" or (before[-2].kind == "W" and not before[-1].glued)
    )


def equations_of(tokens: Sequence[Token]) -> list[Equation]:
    """Returns the equations of a text in order, without pairs of plain numbers (`23 = 37`), which are misread text."""
    joined = list(_join(_without_units(tokens)))
    shape = "".join(token.kind for token in joined)
    found = (
        _equation(joined[match.start() : match.end()])
        for match in _EQUATION.finditer(shape)
        if match.end() - match.start() <= _MAX_TOKENS
    )
    return [equation for equation in found if equation is not None]


def implied_equation(numbers: Sequence[Fraction], factor: Fraction | None = None) -> Equation | None:
    """Returns the equation that a text states in words, judging by its numbers: `4 and 3 make 7`.

    Args:
        numbers: in the order of the text; the last one is the result.
        factor: what the words multiply by ("doubles": 2); None if they do not.

    Returns:
        Sum, difference, product or quotient of the two operands, whichever first gives the result; None if none
        does, or if the number of operands is another.
    """
    *operands, result = numbers if numbers else (Fraction(0),)
    if factor is not None and len(operands) == 1:
        form = _product([operands[0], factor], []) if factor >= 1 else _product([operands[0]], [1 / factor])
        return Equation(form, result) if operands[0] * factor == result else None
    if len(operands) != 2:
        return None
    for first, second in (operands, operands[::-1]):
        if first + second == result:
            return Equation(_sum([(1, first), (1, second)]), result)
        if first - second == result:
            return Equation(_sum([(1, first), (-1, second)]), result)
    for first, second in (operands, operands[::-1]):
        if first * second == result:
            return Equation(_product([first, second], []), result)
        if second and first / second == result:
            return Equation(_product([first], [second]), result)
    return None


def _without_units(tokens: Sequence[Token]) -> Iterator[Token]:
    """Drops units (words between a number and the next operator) and turns single letters in prose into words."""
    listed: list[Token] = []
    for place, token in enumerate(tokens):
        behind = tokens[place + 1].kind if place + 1 < len(tokens) else "|"
        before = tokens[place - 1].kind if place else "|"
        used = behind in "+-*/^=)" or before in "+-*/^=(" or (before == "N" and token.glued)
        listed.append(Token("W", token.text) if token.kind == "V" and not used else token)
    shape = "".join(token.kind for token in listed)
    dropped = {place for match in _UNIT.finditer(shape) for place in range(*match.span())}
    return (token for place, token in enumerate(listed) if place not in dropped)


def _join(tokens: Iterator[Token]) -> Iterator[Token]:
    """Inserts implied multiplications (`2x`, `3(4 + 1)`); other adjacent operands end a clause."""
    before = "|"
    for token in tokens:
        if before in "NV)" and token.kind in "NV(":
            implied = token.glued and token.kind != "N" and before + token.kind != "VV"
            yield Token("*" if implied else "|", "")
        yield token
        before = token.kind


def _equation(tokens: Sequence[Token]) -> Equation | None:
    sides: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind == "=":
            sides.append([])
        else:
            sides[-1].append(token)
    try:
        forms = [_read(side) for side in sides]
    except (SyntaxError, ValueError, RecursionError):
        return None
    if len(forms) > 2 and isinstance(forms[0], str):
        forms = forms[1:]  # "x = 14 + 23 = 37" only names the result
    left, right = forms[0], forms[-1]
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return None
    return Equation(*sorted((left, right), key=lambda form: (not isinstance(form, tuple), repr(form))))


def _read(side: Sequence[Token]) -> Form:
    """Parses one side of an equation.

    Raises:
        SyntaxError, ValueError: it is not an arithmetic expression.
    """
    kept = _balanced(side)
    while kept and kept[-1].kind in "+-*/^(":
        kept = _balanced(kept[:-1])
    values = {f"n{place}": token.value for place, token in enumerate(kept) if token.kind == "N"}
    parts = [
        f"n{place}" if token.kind == "N" else token.text if token.kind == "V" else token.kind
        for place, token in enumerate(kept)
    ]
    tree = ast.parse(" ".join(parts).replace("^", "**"), mode="eval")
    return _canonical(tree.body, values)


def _balanced(tokens: Sequence[Token]) -> list[Token]:
    """Removes unmatched brackets, as in one side of `(14 + 23 = 37)`."""
    opened: list[int] = []
    unmatched: set[int] = set()
    for place, token in enumerate(tokens):
        if token.kind == "(":
            opened.append(place)
        elif token.kind == ")":
            if opened:
                opened.pop()
            else:
                unmatched.add(place)
    unmatched.update(opened)
    return [token for place, token in enumerate(tokens) if place not in unmatched]


def _canonical(node: ast.expr, values: dict[str, Fraction]) -> Form:
    """Raises ValueError for what is no arithmetic."""
    match node:
        case ast.Name(id=name):
            return values.get(name, name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _sum([(-1, _canonical(operand, values))])
        case ast.BinOp(left=left, op=operation, right=right):
            first, second = _canonical(left, values), _canonical(right, values)
        case _:
            raise ValueError(f"not arithmetic: {ast.dump(node)[:80]}")
    match operation:
        case ast.Add():
            return _sum([(1, first), (1, second)])
        case ast.Sub():
            return _sum([(1, first), (-1, second)])
        case ast.Mult():
            return _product([first, second], [])
        case ast.Div():
            return _product([first], [second])
        case ast.Pow():
            return ("^", first, second)
    raise ValueError(f"not arithmetic: {operation}")


def _sum(terms: Sequence[tuple[int, Form]]) -> Form:
    """Returns a canonical sum of signed terms: nested sums are flattened, terms sorted."""
    flat: list[tuple[int, Form]] = []
    for sign, form in terms:
        nested = form[1] if isinstance(form, tuple) and form[0] == "+" else [(1, form)]
        flat += [(sign * inner, part) for inner, part in nested]
    flat = [
        (-sign, -part) if isinstance(part, Fraction) and part < 0 else (sign, part) for sign, part in flat
    ]
    if len(flat) == 1:
        sign, form = flat[0]
        return form if sign > 0 else -form if isinstance(form, Fraction) else ("+", tuple(flat))
    return ("+", tuple(sorted(flat, key=repr)))


def _product(above: Sequence[Form], below: Sequence[Form]) -> Form:
    """Returns a canonical quotient of products: flattened, sorted, 0.5 as 1 / 2, without factors of 1."""
    top: list[Form] = []
    bottom: list[Form] = []
    for forms, same, other in ((above, top, bottom), (below, bottom, top)):
        for form in forms:
            if isinstance(form, tuple) and form[0] == "*":
                same += form[1]
                other += form[2]
            elif isinstance(form, Fraction):
                same.append(Fraction(form.numerator))
                other.append(Fraction(form.denominator))
            else:
                same.append(form)
    top, bottom = ([form for form in forms if form != 1] for forms in (top, bottom))
    if len(top) <= 1 and not bottom:
        return top[0] if top else Fraction(1)
    return ("*", tuple(sorted(top, key=repr)), tuple(sorted(bottom, key=repr)))
