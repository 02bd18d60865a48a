"""Test the rehearsal at full size: phantoms by NIH's label file, measuring, and its conclusion."""

import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from bench import nih_phantoms, rehearsal
from bench.rehearsal import Cost
from data import DataError, chestxray14
from data.phantom import drawing


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Return a small folder as NIH releases it, with one compressed list."""
    folder = tmp_path_factory.mktemp("nih")
    drawing.write("chestxray14", folder / "drawn", 300, 32, seed=3, progress=False)
    for name in (nih_phantoms.LABEL_FILE, *nih_phantoms.LISTS):
        (folder / name).write_bytes((folder / "drawn" / name).read_bytes())
    subprocess.run(["gzip", folder / nih_phantoms.LISTS[1]], check=True)
    return folder


def test_phantoms_have_the_rows_patients_and_lists_of_the_label_file(released, tmp_path):
    nih_phantoms.draw(tmp_path / "drawn", 60, 32, released)
    whole = chestxray14.read(released / "drawn").set_index("image_path")
    part = chestxray14.read(tmp_path / "drawn")
    assert part.attrs["phantom"]  # marked as synthetic
    assert 60 <= len(part) < 75
    pd.testing.assert_frame_equal(
        part.set_index("image_path"), whole.loc[part["image_path"]], check_like=True
    )
    in_part = whole["patient_id"].isin(part["patient_id"])
    assert in_part.sum() == len(part)  # patients are whole


def test_patients_are_drawn_at_random_and_larger_parts_contain_smaller_ones():
    table = pd.DataFrame({"patient": np.repeat(np.arange(100), 3).astype(str)})
    few, many = (rehearsal.nih_phantoms.of_whole_patients(table, "patient", n) for n in (30, 90))
    assert (len(few), len(many)) == (30, 90)
    assert set(few.index) < set(many.index)
    assert few["patient"].nunique() == 10
    assert few.index.max() > 100  # not the first ones


def test_a_missing_label_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no Data_Entry_2017_v2020\.csv"):
        nih_phantoms.label_file(tmp_path, nih_phantoms.LABEL_FILE)


def costs(cpu: dict[int, float], megabytes: dict[int, float]):
    return {
        images: {step: Cost(1.0, cpu[images], megabytes[images]) for step in rehearsal.STEPS}
        for images in cpu
    }


def test_the_quicker_of_two_turns_counts_with_the_larger_memory():
    first, second = Cost(9.0, 6.0, 50.0), Cost(8.0, 7.0, 60.0)
    assert rehearsal.least(first, second) == rehearsal.least(second, first) == (9.0, 6.0, 60.0)


def test_growth_faster_than_linear_is_reported():
    steady = costs({100: 1.0, 400: 4.2}, {100: 50, 400: 50})
    slower = costs({100: 1.0, 400: 16.0}, {100: 50, 400: 50})
    assert not rehearsal.grows_faster(steady, "tables")
    assert rehearsal.grows_faster(slower, "tables")
    assert not rehearsal.grows_faster({100: steady[100]}, "tables")  # one size
    sentence = rehearsal.conclusion({"chexpert": slower})
    assert "Faster than linear: draw (chexpert), " in sentence
    assert sentence.endswith("More memory per image than the bound: none.")


def test_memory_growth_is_reported():
    grown = costs({1000: 1.0, 2000: 2.0}, {1000: 50, 2000: 150})
    assert rehearsal.kilobytes_per_image(grown, "report") == pytest.approx(102.4)
    assert "bound: draw (chexpert)" in rehearsal.conclusion({"chexpert": grown})
    assert "**102.4**" in rehearsal.table({"chexpert": grown})
    assert math.isnan(rehearsal.kilobytes_per_image({1000: grown[1000]}, "report"))


def test_memory_and_time_are_of_the_step_alone(tmp_path):
    def step(stage):
        before = bytearray(os.urandom(1) * 60_000_000)  # the preparation is not timed
        assert before

        def work():
            held = np.ones(50_000_000, np.uint8)
            return held.sum() + sum(range(3_000_000))

        return work

    tmp_path.joinpath("log.txt").touch()
    stage = rehearsal.Stage(rehearsal.REHEARSED[0], tmp_path, 10, None)
    cost = rehearsal.measure(step, stage)
    assert cost.megabytes > 45
    assert 0 < cost.cpu < 5


def test_a_failed_step_is_reported_with_its_reason(tmp_path):
    def step(stage):
        raise ValueError("no such thing")

    stage = rehearsal.Stage(rehearsal.REHEARSED[0], tmp_path, 10, None)
    with pytest.raises(RuntimeError, match="no such thing"):
        rehearsal.measure(step, stage)


def test_the_whole_rehearsal_on_few_images(released, tmp_path):
    command = [sys.executable, "-m", "bench.rehearsal", "--quick", "--datasets", "chestxray14"]
    command += ["--labels", str(released), "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| train an epoch, predict |" in done.stdout
    assert "Faster than linear: " in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["measured.json"]  # nothing else
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert len(again.stdout) < len(done.stdout)  # already measured
