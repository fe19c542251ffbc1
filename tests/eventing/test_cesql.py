"""CESQL beyond the kit: the specification's own sentences, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knlocal.eventing.cesql import ParseError, compile_expression

EVENT = {"specversion": "1.0", "id": "i", "source": "/s", "type": "t", "n": "7", "txt": "a'b"}


def run(text: str, **attributes: Any) -> tuple[Any, list[str]]:
    result = compile_expression(text).evaluate({**EVENT, **attributes})
    return result.value, [error.kind for error in result.errors]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Precedence and left-to-right evaluation (3.6).
        ("TRUE OR TRUE AND FALSE", False),
        ("TRUE XOR TRUE OR TRUE", True),
        ("2 + 3 * 4 - 6 / 2", 11),
        ("10 - 4 - 3", 3),
        ("1 < 2 = TRUE", True),
        ("NOT FALSE = TRUE", True),
        ("1 + 1 = 2 AND 'a' IN ('a')", True),
        ("5 IN (2 + 3)", True),
        ("4 -1", 3),
        ("4-1", 3),
        ("4--1", 5),
        ("+4 + +1", 5),
        ("-2147483648", -2147483648),
        ("2147483647", 2147483647),
        ("007", 7),
        # Truncation towards zero; the remainder has the sign of the dividend (3.4.2).
        ("-7 / 2", -3),
        ("7 / -2", -3),
        ("-7 % 3", -1),
        ("7 % -3", 1),
        # The right operand decides (3.7).
        ("TRUE = 'true' AND FALSE = 'false'", True),
        ("TRUE = 'TRUE' OR FALSE = 'FALSE'", False),
        ("'1' = 1", True),
        ("1 = '1'", True),
        ("1 = TRUE", True),
        ("'01' = 1", True),
        ("1 = '01'", False),
        ("'abc' = 'ABC'", False),
        ("n > 6", True),
        ("n = 7", True),
        ("n = '7'", True),
        # Strings (2.2).
        (r"'a\'b'", "a'b"),
        (r'"a\"b"', 'a"b'),
        (r"'a\"b'", r"a\"b"),
        (r"'a\nb'", r"a\nb"),
        (r"'a\\'", r"a\\"),
        ("''", ""),
        ("'multi\nline'", "multi\nline"),
        (r"txt = 'a\'b'", True),
        # Keywords and identifiers know no case.
        ("nOt ExIsTs NoSuch", True),
        ("EXISTS ID aNd tYpE = 't'", True),
        ("source liKe '/%' oR false", True),
        # Names that begin like keywords, or with a digit.
        ("EXISTS android OR EXISTS notable OR EXISTS inner", False),
        ("EXISTS 1st", False),
        # LIKE (3.4.3).
        ("'a.c' LIKE 'a.c'", True),
        ("'abc' LIKE 'a.c'", False),
        ("'a\nb' LIKE 'a%b'", True),
        ("'a\nb' LIKE 'a_b'", True),
        ("'' LIKE '%'", True),
        ("'' LIKE ''", True),
        ("'aXbXc' LIKE '%X%X%'", True),
        ("'ab' LIKE 'ab%b'", False),
        ("'abab' LIKE '%ab'", True),
        ("'x*' LIKE '_*'", True),
        (r"'50%' LIKE '%\%'", True),
        (r"'50' LIKE '%\%'", False),
        # Functions (3.5).
        ("LENGTH('héllo')", 5),
        ("LENGTH(123)", 3),
        ("CONCAT()", ""),
        ("CONCAT('a', 1, TRUE)", "a1true"),
        ("CONCAT_WS('-')", ""),
        ("CONCAT_WS('-', 'a', 2, FALSE)", "a-2-false"),
        ("lower('AbÇ')", "abç"),
        ("UPPER('abç')", "ABÇ"),
        ("TRIM(' \t\n a b \u3000 ')", "a b"),
        ("LENGTH(TRIM('\x1fa'))", 2),
        ("LEFT('abc', 2)", "ab"),
        ("LEFT('abc', 10)", "abc"),
        ("LEFT('abc', 0)", ""),
        ("RIGHT('abc', 2)", "bc"),
        ("RIGHT('abc', 10)", "abc"),
        ("RIGHT('abc', 0)", ""),
        ("SUBSTRING('abcdef', 2)", "bcdef"),
        ("SUBSTRING('abcdef', -2)", "ef"),
        ("SUBSTRING('abcdef', 0)", ""),
        ("SUBSTRING('abcdef', 6)", "f"),
        ("SUBSTRING('abcdef', -6)", "abcdef"),
        ("SUBSTRING('abcdef', 2, 3)", "bcd"),
        ("SUBSTRING('abcdef', 2, 0)", ""),
        ("SUBSTRING('abcdef', 5, 99)", "ef"),
        ("SUBSTRING('abcdef', -3, 2)", "de"),
        ("SUBSTRING('abcdef', 0, 2)", ""),
        ("ABS('-5')", 5),
        ("IS_INT('-5')", True),
        ("IS_INT('2147483648')", False),
        ("IS_INT(TRUE)", True),
        ("is_bool('False')", True),
        ("IS_BOOL('yes')", False),
        ("IS_BOOL(7)", True),
        ("INT('+7')", 7),
        ("LEFT('abc', '1')", "a"),
        ("LENGTH (  'a' )", 1),
        # Short circuit (3.6).
        ("FALSE AND NOFUNCTION()", False),
        ("TRUE OR missing", True),
        ("TRUE OR missing AND TRUE", True),
        ("FALSE AND missing OR TRUE", True),
        # IN casts the elements to the type of the left operand (3.4.5).
        ("'1' IN (1)", True),
        ("1 IN ('01')", True),
        ("'01' IN (1)", False),
        ("TRUE IN (0, 1)", True),
        ("n IN ('6', '7')", True),
        ("n NOT IN ('6', '8')", True),
        ("'a' IN ('a', missing)", True),
    ],
)
def test_an_expression_has_its_value_and_no_error(text: str, value: object) -> None:
    found, errors = run(text)
    assert (type(found), found, errors) == (type(value), value, [])


@pytest.mark.parametrize(
    ("text", "value", "error"),
    [
        ("missing", False, "missingAttribute"),
        ("(missing)", False, "missingAttribute"),
        ("missing NOT LIKE 'a'", False, "missingAttribute"),
        ("missing IN ('a')", False, "missingAttribute"),
        ("missing NOT IN ('a')", False, "missingAttribute"),
        ("'a' IN (missing)", False, "missingAttribute"),
        ("missing OR TRUE", False, "missingAttribute"),
        ("TRUE XOR missing", False, "missingAttribute"),
        ("LENGTH(missing)", 0, "missingAttribute"),
        ("CONCAT('a', missing)", "", "missingAttribute"),
        ("UPPER(missing)", "", "missingAttribute"),
        ("NOFUNCTION(missing)", False, "missingFunction"),
        ("NOFUNCTION()", False, "missingFunction"),
        ("ABS()", False, "missingFunction"),
        ("IS_INT()", False, "missingFunction"),
        ("IS_BOOL(missing)", False, "missingAttribute"),
        ("ABS(1, 2)", False, "missingFunction"),
        ("CONCAT_WS()", False, "missingFunction"),
        ("SUBSTRING('a')", False, "missingFunction"),
        ("LEFT('abc', -1)", "abc", "functionEvaluation"),
        ("RIGHT('abc', -1)", "abc", "functionEvaluation"),
        ("SUBSTRING('abc', 4)", "", "functionEvaluation"),
        ("SUBSTRING('abc', -4)", "", "functionEvaluation"),
        ("SUBSTRING('abc', 1, -1)", "", "functionEvaluation"),
        ("SUBSTRING('', 1)", "", "functionEvaluation"),
        ("ABS('x')", 0, "cast"),
        ("LEFT('abc', 'x')", "", "cast"),
        ("'x' + 1", 0, "cast"),
        ("-'x'", 0, "cast"),
        ("'x' < 1", False, "cast"),
        ("'x' = 1", False, "cast"),
        ("'x' != 1", False, "cast"),
        ("'x' AND TRUE", False, "cast"),
        ("TRUE AND 'x'", False, "cast"),
        ("1 IN ('x')", False, "cast"),
        ("INT('2147483648')", 0, "cast"),
        ("INT('1.5')", 0, "cast"),
        ("INT(' 1')", 0, "cast"),
        ("INT('')", 0, "cast"),
        ("INT('٣')", 0, "cast"),
        ("BOOL('yes')", False, "cast"),
        ("2147483647 + 1", 0, "math"),
        ("-2147483648 - 1", 0, "math"),
        ("--2147483648", 0, "math"),
        ("-2147483648 / -1", 0, "math"),
        ("65536 * 65536", 0, "math"),
        ("5 % 0", 0, "math"),
    ],
)
def test_an_error_comes_with_a_value_of_the_right_type(
    text: str, value: object, error: str
) -> None:
    found, errors = run(text)
    assert (type(found), found, errors) == (type(value), value, [error])


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", 1, 1, "ends too early"),
        ("   ", 1, 4, "ends too early"),
        ("id =", 1, 5, "ends too early"),
        ("id = = 1", 1, 6, "unexpected '='"),
        ("(id = 'a'", 1, 10, "')'"),
        ("id = 'a", 1, 6, "never ends"),
        ("id =\n 'a' $", 2, 6, "unexpected '$'"),
        ("id LIKE 123", 1, 9, "a string"),
        ("id LIKE source", 1, 9, "a string"),
        ("id IN ()", 1, 8, "unexpected ')'"),
        ("EXISTS (id)", 1, 8, "an attribute"),
        ("EXISTS 'id'", 1, 8, "an attribute"),
        ("ABC(", 1, 5, "ends too early"),
        ("ABC(1,)", 1, 7, "unexpected ')'"),
        ("2147483648", 1, 1, "32 bit"),
        ("-2147483649", 1, 2, "32 bit"),
        ("1 = 99999999999999999999999", 1, 5, "32 bit"),
        ("a-b c", 1, 5, "unexpected"),
        ("'a''b'", 1, 4, "unexpected"),
        ("my_attribute = 1", 1, 3, "unexpected '_'"),
        ("+id", 1, 2, "an integer"),
        ("NOT", 1, 4, "ends too early"),
        ("TRUE FALSE", 1, 6, "unexpected"),
        ("NOT " * 300 + "TRUE", 1, 1, "nested"),
    ],
)
def test_what_is_no_cesql_is_refused_with_its_place(
    text: str, line: int, column: int, says: str
) -> None:
    with pytest.raises(ParseError, match="parse error at line") as caught:
        compile_expression(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert says in str(caught.value)


def test_parentheses_alone_may_nest_deeply() -> None:
    assert run("(" * 3000 + "1" + ")" * 3000) == (1, [])


def test_a_chain_of_a_thousand_clauses_is_no_nesting() -> None:
    chain = " OR ".join(f"id = 'x{n}'" for n in range(1000))
    assert run(f"{chain} OR id = 'i'") == (True, [])


def test_typed_attributes_keep_their_type() -> None:
    assert run("flag", flag=True) == (True, [])
    assert run("flag = 'true'", flag=True) == (True, [])
    assert run("num + 1", num=41) == (42, [])
    assert run("num", num=2**40) == (str(2**40), [])


def test_a_like_pattern_full_of_wildcards_is_quick() -> None:
    text = "a" * 5000 + "b"
    pattern = "%a" * 200 + "%c"
    assert run(f"'{text}' LIKE '{pattern}'") == (False, [])


@pytest.mark.parametrize(
    ("text", "passes"),
    [("id = 'i'", True), ("id", False), ("1", False), ("'true'", False), ("missing = 1", False),
     ("NOT 10", False), ("NOT (missing = 1)", False)],
)  # fmt: skip
def test_a_filter_passes_only_on_a_true_without_errors(text: str, passes: bool) -> None:
    assert compile_expression(text).matches(EVENT) is passes


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_a_parse_error(text: str) -> None:
    try:
        expression = compile_expression(text)
    except ParseError:
        return
    expression.evaluate(EVENT)


WORDS = [
    "id",
    "missing",
    "n",
    "1",
    "-",
    "(",
    ")",
    "AND",
    "OR",
    "XOR",
    "NOT",
    "LIKE",
    "'a%'",
    "IN",
    "EXISTS",
    "ABS",
    "LEFT",
    ",",
    "=",
    "<>",
    "<",
    "*",
    "/",
    "%",
    "TRUE",
    "'7'",
    "CONCAT",
]


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_evaluation_is_total(text: str) -> None:
    try:
        expression = compile_expression(text)
    except ParseError:
        return
    result = expression.evaluate(EVENT)
    assert isinstance(result.value, (bool, int, str))
