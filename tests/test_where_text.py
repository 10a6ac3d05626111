"""The readable form of conditions: what it means, that all of them can be written in it, and where errors are shown."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_where import as_expression, conditions

from simstore import field, key, label
from simstore.errors import InvalidFilterError
from simstore.where import And, Or, parse, text_of

DAY = datetime.date(2024, 5, 1)
NOON = datetime.datetime(2024, 5, 1, 12)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("year>=2020", field("year") >= 2020),
        ("  year >= 2020  ", field("year") >= 2020),
        ("year=2020", field("year") == 2020),
        ("year == 2020", field("year") == 2020),
        ("year<>2020", field("year") != 2020),
        ("year!='2020'", field("year") != "2020"),
        ("x < -1.5e3", field("x") < -1500.0),
        ("x <= .5", field("x") <= 0.5),
        ("x = 0x10", field("x") == 16),
        ("x < inf", field("x") < float("inf")),
        ("x = true", field("x") == True),  # noqa: E712
        ("x = NULL", field("x") == None),  # noqa: E711
        ("x = 'true'", field("x") == "true"),
        ('x = "a \\"b\\" \\u00e9\\n"', field("x") == 'a "b" é\n'),
        ('x = b"a\\xff"', field("x") == b"a\xff"),
        ("x = b", field("x") == "b"),
        ("day > 2024-05-01", field("day") > DAY),
        ("at > 2024-05-01T12:00", field("at") > NOON),
        ("at = 2024-05-01T12:00:00Z", field("at") == NOON.replace(tzinfo=datetime.UTC)),
        ("day = '2024-05-01'", field("day") == "2024-05-01"),
        ("key startswith img/", key.startswith("img/")),
        ("key = 7", key == 7),
        ("key = '7'", key == "7"),
        ('tags contains "x y"', field("tags").contains("x y")),
        ("exists a.b", field("a.b").exists()),
        ("exists .", field(()).exists()),
        (". = 3", field(()) == 3),
        ("a[0].b = 1", field(("a", 0, "b")) == 1),
        ("[-1] = 1", field((-1,)) == 1),
        ("a.0 = 1", field("a.0") == 1),
        ('"year of birth"."a.b" > 3', field(("year of birth", "a.b")) > 3),
        ('"key" = 1 and "not" = 2', (field("key") == 1) & (field("not") == 2)),
        ("key.x = 1", field("key.x") == 1),
        ("label in (cat,dog)", label.is_in(["cat", "dog"])),
        ("label IN [cat, null, 3]", label.is_in(["cat", None, 3])),
        ("label in ()", label.is_in([])),
        ("label not  in (cat)", ~label.is_in(["cat"])),
        ("not label in (cat)", ~label.is_in(["cat"])),
        ("not not x = 1", ~~(field("x") == 1)),
        ("a=1 or b=2 and c=3", (field("a") == 1) | (field("b") == 2) & (field("c") == 3)),
        ("(a=1 OR b=2) AND c=3", ((field("a") == 1) | (field("b") == 2)) & (field("c") == 3)),
        ("not (a=1 or b=2)", ~((field("a") == 1) | (field("b") == 2))),
        ("true", And(())),
        ("false", Or(())),
        ("year>=2020 and label in (cat,dog)", (field("year") >= 2020) & label.is_in(["cat", "dog"])),
        ("größe-x_1 = é", field("größe-x_1") == "é"),
        ("file = a/b-c.png", field("file") == "a/b-c.png"),
    ],
)
def test_what_a_text_means(text: str, meant: Any) -> None:
    assert parse(text) == meant
    assert parse(text_of(meant)) == meant


@given(conditions)
def test_every_condition_can_be_written(condition: Any) -> None:
    where = as_expression(condition)
    assert parse(text_of(where)) == where


@given(st.text(alphabet="ab01.-+eExTZ:'\"\\[]()=<>!,& \t\nnotdrikey\ud800é", max_size=30))
def test_any_text_is_a_condition_or_a_clear_error(text: str) -> None:
    try:
        where, said = parse(text), ""
    except InvalidFilterError as err:
        where, said = None, str(err)
    if where is None:
        assert said.count("\n") == 2 and said.endswith("^")
    else:
        assert parse(text_of(where)) == where


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("", 0, "expected a comparison, as year >= 2020"),
        ("year", 4, "expected == != < <= > >= in startswith contains, or not in"),
        ("key", 3, "expected == != < <= > >= in startswith, or not in"),
        ("year >=", 7, "expected a value after >="),
        ("year >= 2020 label", 13, "expected and, or, or the end"),
        ("year >= 2020 and", 16, "expected a comparison"),
        ("(a = 1", 6, "expected and, or, or )"),
        ("a = 1)", 5, "expected and, or, or the end"),
        ("a in cat", 5, "expected ( and values, as in (cat, dog)"),
        ("a in (cat dog)", 10, "expected , or )"),
        ("a in (cat,", 10, "expected a value"),
        ('a = "x', 4, "expected a closing quote"),
        ("a = 2024-13-01", 4, "expected a date that there is"),
        ('a = "\\q"', 4, "expected \\n, \\t"),
        ("a.b. = 1", 5, "expected a name after the dot"),
        ("or = 1", 0, 'a field of this name is written "or", in quotes'),
        ("key contains x", 4, "key has no contains"),
        ("x = nan", 4, "NaN, which equals nothing"),
        ("label = 1.5", 8, "takes"),
        ("key startswith 3", 15, "takes str"),
        ("not " * 200 + "a=1", 400, "nest 100 levels"),
        ("(" * 200 + "a=1" + ")" * 200, 100, "nest 100 levels"),
    ],
)
def test_an_error_shows_the_place(text: str, at: int, said: str) -> None:
    with pytest.raises(InvalidFilterError) as caught:
        parse(text)
    what, shown, caret = str(caught.value).rsplit("\n", 2)
    assert said in what
    assert shown[len(caret) - 1 :].removesuffix("…") == text[at:][:60]
