"""Text from files is safe to print."""

import pytest

from hrvol.errors import InputError, first_line, one_line
from hrvol.text import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pore", "pore"),
        ("Poren, \u05d7\u05d5\u05e8, \u5b54 \u00b5m", "Poren, \u05d7\u05d5\u05e8, \u5b54 \u00b5m"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\u202etxt\u200b", "a\\nb\\u202etxt\\u200b"),
        ("\udc80\U000e0001", "\\udc80\\U000e0001"),
    ],
)
def test_a_terminal_finds_no_commands(text, expected):
    assert printable(text) == expected


def test_the_middle_of_a_long_text_is_left_out():
    shown = printable("start" + "x" * 10**6 + "end", 100)
    assert len(shown) <= 100
    assert shown.startswith("start")
    assert shown.endswith("xend")


def test_messages_of_errors_are_safe():
    assert str(InputError("a.tif: found \x1b[31m\nand more")) == "a.tif: found \\x1b[31m and more"
    assert len(str(InputError("x" * 10**6))) <= 2000
    assert one_line(InputError("a.tif:\x1b]0;title\x07 found")) == "a.tif:\\x1b]0;title\\x07 found"
    assert first_line(ValueError("\x1b[2Jgone\nmore")) == "\\x1b[2Jgone"
