import pytest

from hrvol.classes import ClassInfo, default_classes, default_colours
from hrvol.errors import InputError, UsageError


def test_a_class_keeps_its_colour_whatever_other_classes_there_are():
    alone = default_classes([3])[0]
    among = default_classes([1, 2, 3, 9])[2]
    assert alone == among
    assert default_colours(300)[:5] == default_colours(5)


def test_colours_differ():
    assert len(set(default_colours(120))) == 120


def test_values_with_gaps_come_out_in_order_of_value():
    assert [(c.value, c.name) for c in default_classes([7, 2])] == [(2, "class 2"), (7, "class 7")]


def test_names_are_given_per_value_or_for_all_of_one_to_max():
    assert [c.name for c in default_classes([1, 3], ["pore", "matrix"])] == ["pore", "matrix"]
    assert [c.name for c in default_classes([1, 3], ["pore", "crack", "matrix"])] == ["pore", "matrix"]


@pytest.mark.parametrize("names", [["pore"], ["a", "b", "c", "d"], ["a", "a"]])
def test_names_that_do_not_fit_are_refused(names):
    with pytest.raises(UsageError, match="names"):
        default_classes([1, 3], names)


def test_zero_repeated_values_and_odd_colours_are_refused():
    with pytest.raises(InputError, match="found value 0"):
        default_classes([0, 1])
    with pytest.raises(InputError, match="each value once"):
        default_classes([1, 1])
    with pytest.raises(InputError, match="colour"):
        ClassInfo(1, "a", (0, 0, 256))
