"""Arithmetic found in text, in a form in which equal computations are equal values.

`14 + 23 = 37`, `23 + 14 = 37` and `37 = 14 + 23` are one equation; `14 - 23` and `23 - 14` are two. What is
*stated* is kept, right or wrong: nothing is evaluated, and `14 + 23 = 38` is an equation of its own. A
chain `3 * 4 + 2 = 12 + 2 = 14` counts as its two ends, so that a step told in more detail stays the same.

Parsing is Python's own (`ast`, which runs nothing). Why not sympy or math-verify: sympy's parser evaluates
text as code, which a model's output must never be; and both decide whether two *values* are equal, where a
step's meaning is what is computed from what: `4 + 3 = 7` and `9 - 2 = 7` have to differ.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Form = Any
"""A canonical expression: a `Fraction`, a variable's letter, or a nested tuple that starts with + , * or ^."""

# Letters read as variables when they stand beside an operator; the others are more often units (5 m, 3 h).
_VARIABLES = frozenset("abcknpqrtuvwxyz")
_LONGEST = 200  # tokens of a side; longer is no step of a solution, and deep nesting would be a trap
_TOKEN = re.compile(  # digits are bounded: Python refuses to read numbers of thousands
    r"(?P<number>\d{1,99}(?:\.\d{1,99})?|\.\d{1,99})(?P<percent>\s*(?:%|percent\b|per cent\b))?"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|(?P<operator>[-+*/^()=])|(?P<stop>\S)"
)
_UNIT = re.compile(r"(?<=[NV)])W{1,3}(?=[-+*/^=)])")
_EQUATION = re.compile(r"[NV(][NV()+\-*/^]*(?:=-?[NV(][NV()+\-*/^]*)+")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text. `kind`: N number, V variable, W word, | end of a clause, or the operator itself."""

    kind: str
    text: str
    value: Fraction = Fraction(0)
    glued: bool = False


@dataclass(frozen=True, slots=True)
class Equation:
    """Two canonical sides; the side that computes comes first."""

    left: Form
    right: Form


def tokens_of(text: str) -> list[Token]:
    """Cuts normalised text into tokens; `-5` is a number where no difference can be meant."""
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
    """Whether a minus stands directly before a number and behind nothing it could take away from."""
    if not before or before[-1].kind != "-" or not glued:
        return False
    return (
        len(before) == 1 or before[-2].kind in "|=(+-*/^" or (before[-2].kind == "W" and not before[-1].glued)
    )


def equations_of(tokens: Sequence[Token]) -> list[Equation]:
    """The equations in a text, in order; those of two bare numbers (`23 = 37`) are misread text and left out."""
    joined = list(_join(_without_units(tokens)))
    shape = "".join(token.kind for token in joined)
    found = (
        _equation(joined[match.start() : match.end()])
        for match in _EQUATION.finditer(shape)
        if match.end() - match.start() <= _LONGEST
    )
    return [equation for equation in found if equation is not None]


def implied_equation(numbers: Sequence[Fraction], factor: Fraction | None = None) -> Equation | None:
    """The equation that a text without one tells, if its numbers give it: `4 and 3 make 7`.

    Args:
        numbers: in the order of the text; the last one is the result.
        factor: what the words multiply by ("doubles": 2), None for nothing.

    Returns:
        The first that holds of sum, difference, product and quotient of two numbers; None if none does, or if
        there are not two.
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
    """Drops words between a number and the operator behind it, and reads a lone letter as a word."""
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
    """Writes out products that are implied (`2x`, `3(4 + 1)`) and ends a clause between other neighbours."""
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
        forms = forms[1:]  # "x = 14 + 23 = 37" says what 14 + 23 is
    left, right = forms[0], forms[-1]
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return None
    return Equation(*sorted((left, right), key=lambda form: (not isinstance(form, tuple), repr(form))))


def _read(side: Sequence[Token]) -> Form:
    """Reads one side.

    Raises:
        SyntaxError, ValueError: it is no expression.
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
    """Without brackets that lack their partner, as in `(14 + 23 = 37)`."""
    opened: list[int] = []
    lonely: set[int] = set()
    for place, token in enumerate(tokens):
        if token.kind == "(":
            opened.append(place)
        elif token.kind == ")":
            if opened:
                opened.pop()
            else:
                lonely.add(place)
    lonely.update(opened)
    return [token for place, token in enumerate(tokens) if place not in lonely]


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
            raise ValueError(f"no arithmetic: {ast.dump(node)[:80]}")
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
    raise ValueError(f"no arithmetic: {operation}")


def _sum(terms: Sequence[tuple[int, Form]]) -> Form:
    """A sum with its signs, nested sums opened, in an order of its own."""
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
    """A product and what it is divided by, nested ones opened; 0.5 is 1 / 2, and factors of 1 say nothing."""
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
