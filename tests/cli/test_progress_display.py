"""Progress: sums from many workers, rate and time left, one line now and then."""

import io

import pytest

from hrvol.cli.common.progress import BarDisplay, LineDisplay, display
from hrvol.progress import Tally, count, duration


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_tally_adds_partial_and_finished_tasks():
    seen = []
    tally = Tally(lambda *event: seen.append(event), "segment", 100)
    tally.report("a", 10)
    tally.report("b", 20)
    tally.report("a", 5)  # arrives late, out of order
    tally.finish("a", 40)
    tally.report("a", 30)  # after its end
    assert seen == [
        ("segment", 0, 100),
        ("segment", 10, 100),
        ("segment", 30, 100),
        ("segment", 30, 100),
        ("segment", 60, 100),
    ]


def test_a_failed_task_does_not_count():
    tally = Tally(None, "segment", 100)
    tally.report("a", 30)
    tally.finish("a", 0)
    tally.report("a", 40)
    assert tally.done == 0


def test_lines_have_rate_and_time_left_and_come_seldom():
    clock, stream = Clock(), io.StringIO()
    with LineDisplay(stream, clock, interval=5) as lines:
        lines("segment", 0, 4_000_000)
        for step in range(1, 21):
            clock.now = 100 + step
            lines("segment", step * 100_000, 4_000_000)
    written = stream.getvalue().splitlines()
    assert len(written) == 4
    assert written[0] == "segment: 12 % (500 k of 4 M voxels), 100 k voxels/s, 35 s left"


def test_the_last_line_is_always_written_and_only_once():
    clock, stream = Clock(), io.StringIO()
    with LineDisplay(stream, clock) as lines:
        lines("train", 0, 10)
        clock.now += 1
        lines("train", 10, 10)
        lines("train", 10, 10)
    assert stream.getvalue() == "train: 100 % (10 of 10 voxels), 10 voxels/s, took 1 s\n"


def test_rate_does_not_count_what_an_earlier_run_did():
    clock, stream = Clock(), io.StringIO()
    with LineDisplay(stream, clock, interval=1) as lines:
        lines("segment", 900, 1100)
        clock.now += 10
        lines("segment", 1000, 1100)
    assert "10 voxels/s, 10 s left" in stream.getvalue()


def test_a_terminal_gets_a_bar_and_a_file_gets_lines():
    assert isinstance(display(Terminal()), BarDisplay)
    assert isinstance(display(io.StringIO()), LineDisplay)


def test_bar_shows_stage_percent_and_rate():
    clock, stream = Clock(), Terminal()
    with BarDisplay(stream, clock) as bars:
        bars("train", 10, 10)
        bars("segment", 0, 200)
        clock.now += 10
        bars("segment", 100, 200)
    assert "segment" in stream.getvalue()
    assert "50%" in stream.getvalue()
    assert "10 voxels/s" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (3601, "1 h 00 min"), (90000, "1 d 01 h"), (-1, "0 s")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (12, "12"), (1234, "1.23 k"), (2.5e9, "2.5 G")])
def test_count(number, text):
    assert count(number) == text


def test_stages_that_are_over_can_be_forgotten():
    terminal, clock = Terminal(), Clock()
    with BarDisplay(terminal, clock) as bars:
        for stage in ("a: check", "a: segment", "series"):
            bars(stage, 5, 10)
        bars.forget("a: ")
        bars("a: segment", 1, 10)  # another one of this name
    last = terminal.getvalue().rpartition("\x1b[2K")[2]
    assert "series" in last
    assert "a: check" not in last
    stream = io.StringIO()
    with LineDisplay(stream, clock, interval=0) as lines:
        lines("a: segment", 0, 10)
        lines.forget("a: ")
        lines("a: segment", 0, 10)
        lines("a: segment", 10, 10)
    assert len(stream.getvalue().splitlines()) == 1
