import pytest

from hrvol.classes import ClassInfo, default_classes, default_colour, default_colours
from hrvol.errors import InputError, UsageError
from hrvol.volume.ome.metadata import read_classes


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


@pytest.mark.parametrize("name", ["", "a\x1b[31m", "a\nb", "a\u202eb", "a" * 201])
def test_names_that_a_terminal_obeys_or_hides_are_refused(name):
    with pytest.raises(InputError, match="class 1: found the name") as caught:
        ClassInfo(1, name, (0, 0, 0))
    assert str(caught.value).isprintable()
    with pytest.raises(UsageError, match="classes: found the name"):
        default_classes([1, 2], [name, "b"])
    ClassInfo(1, "Größe 相 ✓" * 10, (0, 0, 0))


def test_only_the_colours_of_values_that_exist_are_made():
    with pytest.raises(InputError, match="found value 1000000000, expected at most 65535"):
        default_classes([1, 10**9])
    assert default_colour(10**9) == default_colour(10**9)
    assert [default_colour(value) for value in range(1, 31)] == list(default_colours(30))
    attributes = {
        "image-label": {
            "colors": [{"label-value": 10**9, "rgba": None}],
            "properties": [{"label-value": 10**9, "class": "a\x1b"}],
        }
    }
    (only,) = read_classes({"ome": {"version": "0.5", **attributes}}, "labels")
    assert (only.value, only.name) == (10**9, "a\\x1b")
