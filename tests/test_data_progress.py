"""The time left for a whole table, from the epochs that are done."""

from data.progress import TimeLeft


def test_time_left_is_that_of_all_epochs_ahead():
    time_left = TimeLeft(4)
    assert time_left.after(10) == "30 s left"
    assert time_left.after(230) == "4 min left"


def test_skipped_epochs_take_no_time():
    time_left = TimeLeft(10)
    time_left.skip(7)
    assert time_left.after(20) == "40 s left"
