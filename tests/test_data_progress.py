"""Progress lines, and the time left for a whole table."""

import itertools

import pytest

from data import progress
from reproduce.engine.time_left import TimeLeft


def test_time_left_covers_all_remaining_epochs():
    time_left = TimeLeft(4)
    assert time_left.after(10) == "30 s left"
    assert time_left.after(230) == "4 min left"


def test_skipped_epochs_take_no_time():
    time_left = TimeLeft(10)
    time_left.skip(7)
    assert time_left.after(20) == "40 s left"


@pytest.fixture
def clock(monkeypatch):
    """Install a clock that starts at 0 and advances 4 seconds per call."""
    ticks = itertools.count(0, 4)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))


def test_lines_come_every_ten_seconds_and_at_the_end(clock, capsys):
    assert list(progress.with_progress("abcdefg", "read", 7)) == list("abcdefg")
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["read: 3/7 images, 0/s", "read: 6/7 images, 0/s", "read: 7/7 images, 0/s"]


def test_earlier_images_count_for_the_total_but_not_for_the_rate(clock, capsys):
    items = [40, 40]
    assert list(progress.with_progress(items, "read", 1080, done=1000, images=int)) == items
    assert capsys.readouterr().err == "read: 1,080/1,080 images, 10/s\n"


def test_no_line_where_none_is_wanted(clock, capsys):
    assert list(progress.with_progress("abcdefg", "read", 7, show=False)) == list("abcdefg")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(29.9, "90 s left"), (29.6, "89 s left"), (30, "2 min left"), (1799, "90 min left"),
     (1800, "1.5 h left"), (7200, "6.0 h left")],
)  # fmt: skip
def test_time_left_has_a_suitable_unit(seconds, text):
    assert TimeLeft(4).after(seconds) == text


def test_a_terminal_gets_a_bar_and_no_lines(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.with_progress("abcdefg", "read", 7)) == list("abcdefg")
    shown = capsys.readouterr().err
    assert "read: 100%" in shown
    assert "images," not in shown
    assert list(progress.with_progress("abc", "read", 3, show=False)) == list("abc")
    assert capsys.readouterr().err == ""
