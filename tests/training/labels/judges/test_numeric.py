"""The judge `numeric`: which ways of writing arithmetic are the same, and robustness to any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticspec.training.labels.judges.numeric import NumericJudge, figures_of

SAME = [
    ("3 + 4 = 7", "4 and 3 make 7"),
    ("1,200 + 3 = 1203", "1200 + 3 = 1,203"),
    ("It costs $3.50.", "It costs 3.5 dollars"),
    (r"\frac{1}{2} \times 48 = 24", "48/2 = 24"),
    (r"\(48 \div 2 = 24\)", "Half of 48 is 24"),
    ("14 x 3 = 42", "14 × 3 = 42"),
    ("14x3 = 42", r"3 \cdot 14 = 42"),
    ("14 * 3 = 42", "3*14=42"),
    ("Natalia sold 48/2 = <<48/2=24>>24 clips", "She sold 48/2=24"),
    ("100 - 50 - 30 - 15 = 5", "100 - 30 - 15 - 50 = 5"),
    ("14 pens + 23 pens = 37 pens", "14 + 23 = 37"),
    ("37 = 14 + 23", "14+23=37"),
    ("3*4+2 = 12+2 = 14", "2 + 3*4 = 14"),
    ("**Step 2:** 14 plus 23 equals 37", "14+23=37"),
    ("50% of 48 = 24", "0.5 * 48 = 24"),
    ("(14 + 23 = 37)", "14 + 23 = 37"),
    ("x = 14 + 23 = 37", "14 + 23 = 37"),
    ("2x + 3 = 7", "3 + 2x = 7"),
    ("The 23 pens bring the count from 14 to 37.", "14 + 23 = 37"),
    ("The 23 pens bring the count from 37 down to 14.", "37 - 23 = 14"),
    ("The doubling brings Mia from 14 to 28", "2 * 14 = 28"),
    ("Losing half of the pens brings Mia from 28 down to 14.", "28 / 2 = 14"),
    ("So, it goes on.", "so it goes on"),
    (r"The answer is \boxed{37}.", "So it is 37"),
    ("1. Ana has 5 pens", "Ana has five pens"),
    ("- $12/60 = $0.2 per minute", "12/60 = 0.2"),
    (r"\[ \text{Total} = 14 + 23 = 37 \]", "14 + 23 = 37"),
    ("a 3-page letter", "3 pages"),
    ("3 1/2 cups", "3.5 cups"),
    ("3½ cups", r"3\frac{1}{2} cups"),
    ("5kg + 3kg = 8kg", "5 + 3 = 8"),
    ("12 pens * $3/pen = $36", "12 * 3 = 36"),
    ("-5 + 8 = 3", "8 - 5 = 3"),
    ("(3 + 4) * 2 = 14", "2(4 + 3) = 14"),
    (r"\dfrac{3}{4} of 20 = 15", "3/4 * 20 = 15"),
    ("3^2 = 9", "3² = 9"),
    ("14 + 23 = 37. So there are 37, since 14 + 23 = 37.", "14 + 23 = 37"),
]
DIFFERENT = [
    ("3 + 4 = 7", "3 + 4 = 8"),
    ("14 - 23 = 37", "14 + 23 = 37"),
    ("4 + 3 = 7", "9 - 2 = 7"),
    ("7 - 4 = 3", "3 + 4 = 7"),
    ("7 - 4 = 3", "4 - 7 = 3"),
    ("8/2 = 4", "2/8 = 4"),
    ("2^3 = 8", "3^2 = 8"),
    ("2 + 3 * 4 = 14", "(2 + 3) * 4 = 14"),
    ("Ana has 5", "Ana has 6"),
    ("1,200", "1.2"),
    ("20%", "20"),
    ("3/4", "4/3"),
    ("x = 5", "y = 5"),
    ("So", "Then"),
    ("So", "So 5"),
    ("3 + 4 = 7", "3 + 4 = 7 and 7 + 1 = 8"),
    ("Ana has 5 pens.", "Ana has 5 pens.</think>"),
    ("temperature is -5", "temperature is 5"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_equal_arithmetic_means_the_same(first: str, second: str) -> None:
    one, two = NumericJudge().keys("", "", [first, second])
    assert one == two, (figures_of(first), figures_of(second))


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_other_arithmetic_means_something_else(first: str, second: str) -> None:
    one, two = NumericJudge().keys("", "", [first, second])
    assert one != two


@given(st.text(alphabet="0123456789.,+-*/^()=x% $\\{}frac\n", max_size=60) | st.text(max_size=40))
def test_any_text_has_a_stable_key(text: str) -> None:
    (key,) = NumericJudge().keys("", "", [text])
    assert key == NumericJudge().keys("", "", [text])[0]
    hash(key)


def test_long_and_deeply_nested_text_is_read() -> None:
    for text in ("(" * 5000 + "1" + ")" * 5000 + " = 1", "1+" * 5000 + "1 = 5001", "9" * 5000 + " = 1"):
        assert NumericJudge().keys("", "", [text])
