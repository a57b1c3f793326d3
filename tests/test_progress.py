"""Stages get other names on their way to a callback."""

import pytest

from hrvol.progress import renamed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "sample"),
        ({"prefix": "{a}: "}, "{a}: sample"),
        ({"suffix": " 2 of 3"}, "sample 2 of 3"),
        ({"stage": "features"}, "features"),
    ],
)
def test_a_stage_is_renamed_and_its_numbers_are_kept(change, expected):
    reports = []
    progress = renamed(lambda *report: reports.append(report), **change)
    progress("sample", 3, 4)
    assert reports == [(expected, 3, 4)]


def test_no_callback_stays_none():
    assert renamed(None, prefix="a: ") is None
