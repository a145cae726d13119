"""The tables and texts of the commands for looking by hand."""

from __future__ import annotations

import json

import pytest

from exporter.look.tables import Column, cut, least_width, number, table, to_json, to_terminal, wrapped


def test_only_the_longest_text_is_cut() -> None:
    """Numbers and ids stay whole, even where the line is then too long; wide characters count twice."""
    columns = Column("id"), Column("name", "text"), Column("other", "text"), Column("n", "number")
    rows = [("0123456789", "日本語" * 10, "a" * 20, "12"), ("1", "b", "c", "3456")]
    assert table(columns, rows, None)[1] == f"0123456789  {'日本語' * 10}  {'a' * 20}    12"
    assert table(columns, rows, 50) == [
        "id          name             other               n",
        "0123456789  日本語日本語日…  aaaaaaaaaaaaaa…    12",
        "1           b                c                3456",
    ]


def test_the_least_width_is_that_of_the_narrowest_table() -> None:
    """What `least_width` promises, `table` keeps."""
    columns = Column("id"), Column("name", "text"), Column("n", "number")
    rows = [("0123456789", "b" * 50, "12")]
    width = least_width(columns, rows)
    assert max(len(line) for line in table(columns, rows, width)) == width
    assert max(len(line) for line in table(columns, rows, 5)) == width


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0"),
        (12.0, "12"),
        (1200, "1200"),
        (1234567.8912, "1234567.891"),
        (-2.5, "-2.5"),
        (0.000123456, "0.0001235"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, shown: str) -> None:
    """Never more than three decimals, and no row of zeros."""
    assert number(value) == shown


def test_texts_are_cut_wrapped_and_tamed() -> None:
    """Whole characters only; addresses are not broken; what a terminal would obey becomes a space."""
    assert [cut("日本語", width) for width in (6, 5, 4, 1)] == ["日本語", "日本…", "日…", "…"]
    assert cut("e\u0301a", 2) == "e\u0301a"
    assert wrapped("see https://developer.apple.com/documentation now", 24, "  ") == [
        "  see",
        "  https://developer.apple.com/documentation",
        "  now",
    ]
    assert to_terminal("a\x1b[0mb\nc\r\x9b", "utf-8") == "a [0mb\nc  "
    assert to_terminal("Müller\n", "ascii") == "M?ller\n"
    assert to_json({"ü": "\x7f\u2028\U000e0001\ud800"}, "utf-8") == (
        '{\n  "ü": "\\u007f\\u2028\\udb40\\udc01\\ud800"\n}'
    )
    assert json.loads(to_json({"ü": "😀\x85"}, "ascii")) == {"ü": "😀\x85"}
