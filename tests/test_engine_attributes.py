"""images.csv.gz: sex, age and view of every image beside a paper's tables."""

import pandas as pd
import pytest

from reproduce import RunError
from reproduce.engine import attributes

FRAME = pd.DataFrame(
    {
        "image_path": ["b.png", "a.png"],
        "patient_id": ["2", "1"],
        "sex": ["F", "M"],
        "age": ["058Y", ""],
        "view": ["PA", "AP"],
    }
)


def test_what_the_dataset_states_comes_back_by_image(tmp_path):
    attributes.save(FRAME, tmp_path)
    assert attributes.of_images(tmp_path, ["a.png", "never.png", "b.png"]) == {
        "sex": ["M", "", "F"],
        "age": ["", "", "058Y"],
        "view": ["AP", "", "PA"],
    }
    assert attributes.of_images(tmp_path, ["never.png"]) == {}
    assert attributes.of_images(tmp_path / "nowhere", ["a.png"]) == {}


def test_equal_images_leave_the_file_and_others_join_it(tmp_path):
    attributes.save(FRAME, tmp_path)
    before = (tmp_path / attributes.FILE).stat().st_mtime_ns
    attributes.save(FRAME.iloc[::-1], tmp_path)
    assert (tmp_path / attributes.FILE).stat().st_mtime_ns == before
    attributes.save(FRAME.iloc[:1].assign(image_path="c.png", age="7"), tmp_path)
    assert attributes.of_images(tmp_path, ["a.png", "c.png"])["age"] == ["", "7"]
    attributes.save(FRAME.assign(view="PA"), tmp_path)  # a corrected label file
    assert attributes.of_images(tmp_path, ["a.png"])["view"] == ["PA"]


def test_a_damaged_file_is_written_again(tmp_path):
    (tmp_path / attributes.FILE).write_bytes(b"\x1f\x8bno gzip")
    assert attributes.read(tmp_path) is None
    attributes.save(FRAME, tmp_path)
    assert attributes.of_images(tmp_path, ["a.png"])["sex"] == ["M"]


def test_an_attribute_that_the_dataset_lacks_is_refused_before_training():
    attributes.check(("sex", "age"), FRAME, "chexpert")
    with pytest.raises(RunError, match=r"--by sex: the label files of this plco .* only view"):
        attributes.check(("view", "sex"), FRAME.assign(sex="").drop(columns="age"), "plco")
