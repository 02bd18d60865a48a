"""Apply finished runs of every kind to files: equal bits as in their caches, and refusals."""

import functools
import os
import shutil
import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from data.augment import Augment
from data.phantom import drawing
from evaluation import hierarchy, operating_points, probabilities
from evaluation.predictions import VALIDATION, load
from models import bilinear, classifier, inference
from reproduce import RunError
from reproduce import predict as command
from reproduce.engine import dataset, rebuild
from reproduce.engine.options import Options
from reproduce.engine.rows import Combined, Fit, Network, Readout, Row, Targets, Task, bce
from reproduce.engine.schedules import Constant
from reproduce.engine.train import train_table

NAMES = ("Abnormal", "Cardiac", "Cardiomegaly")
PARENTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
ANCESTORS = PARENTS @ PARENTS + PARENTS + np.eye(3)
TTA = Augment(flip=True, degrees=5)


@dataclass(frozen=True)
class Config:
    size: int = 32
    batch_size: int = 4
    weights: str = "none"


def targets(frame: pd.DataFrame) -> Targets:
    truth = frame[["Cardiomegaly"] * 3].to_numpy(np.float32)
    return Targets(truth, truth)


def chain_rule(logits: np.ndarray) -> np.ndarray:
    return hierarchy.path_product(probabilities.sigmoid(logits), ANCESTORS)


def select_first(truth: np.ndarray, predicted: np.ndarray, loss: float) -> float:
    return 0.0


def rows(config: Config, dataset: str) -> list[Row | Combined]:
    """Chain rule; the same with random views; a deep head with dropout, uncropped; their fusion."""
    task = Task(NAMES, targets)
    fit = Fit(1, Constant(1e-3), config.batch_size, select=select_first)
    plain = Network("tiny", config.size, config.weights)
    deep = functools.partial(classifier.build, head="asadi2025", dropout=0.5)
    chain = Row("chain", task, bce, fit, plain, Readout(chain_rule), centre=True)
    views = Readout(chain_rule, inference.AugmentedPasses(TTA, 2))
    return [
        chain,
        replace(chain, name="drawn", fit=fit.without_training(), readout=views, start_from="chain"),
        Row("deep", task, bce, fit, replace(plain, build=deep)),
        Combined("fusion", ("chain", "deep")),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train for one epoch on a few phantoms; return the runs and Data by row, and the images."""
    folder = tmp_path_factory.mktemp("predict")
    script = types.ModuleType("reproduce.toy2020")
    script.Config, script.rows = Config, rows
    sys.modules["reproduce.toy2020"] = script
    (folder / "reproduce").mkdir()
    (folder / "reproduce" / "toy2020.sh").touch()  # only a paper's script is imported
    drawing.write("chestxray14", folder / "images", 40, 48, seed=3, progress=False)
    options = Options(
        dataset="chestxray14",
        data_dir=str(folder / "images"),
        cache_dir=folder / "cache",
        results_dir=folder / "results",
    )
    frame = dataset.read(options, Config().size, 0, 38)
    frame = frame.assign(split=np.resize(["train", "test", "val", "train"], len(frame)))
    cut = dataset.decode(options, frame, frame.attrs, "", 38, 32)
    table = rows(Config(), "chestxray14")
    trained = train_table("toy2020", table, Config(), cut, options)
    by_row = {each.row.name: each.folder for each in trained}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuild, "ROOT", folder)
        yield by_row, {"chain": cut.centre(), "deep": cut}, folder / "images"
    del sys.modules["reproduce.toy2020"]


def files_of(folder: Path, root: Path) -> list[Path]:
    return [root / name for name in load(folder / "predictions.npz").ids]


@pytest.mark.parametrize("row", ["chain", "deep"])
def test_pixels_are_the_caches_to_the_last_bit(made, row):
    runs, data, root = made
    rebuilt = rebuild.load(runs[row])
    assert (rebuilt.template is not None) == (row == "deep")
    cache = data[row].cache
    for path in files_of(runs[row], root):
        cached = cache.images(cache.indices([path.relative_to(root).as_posix()]))[0]
        np.testing.assert_array_equal(rebuild.read(rebuilt, path), cached)


@pytest.mark.parametrize("row", ["chain", "deep", "fusion"])
def test_probabilities_are_the_runs_to_the_last_bit(made, row, tmp_path):
    runs, _, root = made
    files = files_of(runs[row], root)
    assert command.main(["--run", str(runs[row]), *map(str, files), "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    expected = load(runs[row] / "predictions.npz")
    np.testing.assert_allclose(table[list(NAMES)], expected.mean, atol=1e-12)
    assert table["image"].tolist() == [str(path) for path in files]
    rebuilt = rebuild.load(runs[row])
    networks = rebuild.networks(rebuilt)
    images = {
        each.folder: [rebuild.read(each, path) for path in files] for each in rebuilt.networks
    }
    found = rebuild.predictions(rebuilt, networks, images, files, None)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert (f"{NAMES[0]} ±" in table) == (row == "fusion")


@pytest.mark.parametrize("kept", [True, False])
def test_labels_are_present_or_absent_at_the_rows_operating_point(made, tmp_path, capsys, kept):
    folder, root, flags = made[0]["chain"], made[2], ("--operating-point", "sensitivity=0.9")
    if not kept:  # a run of an earlier version
        shutil.copytree(folder.parents[1], tmp_path / "earlier")
        folder = tmp_path / "earlier" / folder.parent.name / folder.name
        (folder / VALIDATION).unlink()
    files = [str(path) for path in files_of(folder, root)[:3]]
    assert command.main(["--run", str(folder), *files, *flags, "--out", str(tmp_path)]) == 0
    chosen_on = load(folder / (VALIDATION if kept else "predictions.npz"))
    rule = operating_points.parse("sensitivity=0.9")
    thresholds = operating_points.choose(chosen_on.targets, chosen_on.mean, rule)
    table = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    for name, threshold in zip(NAMES, thresholds, strict=True):
        calls = ["present" if value >= threshold else "absent" for value in table[name]]
        assert table[f"{name} present"].tolist() == ([""] * 3 if np.isnan(threshold) else calls)
    where = "on validation images" if kept else "on the scored images themselves"
    assert where in capsys.readouterr().out


def test_a_row_without_own_weights_draws_as_its_run_did(made, tmp_path):
    """Every image draws as the first of the test set does, so that one image has equal results."""
    runs, _, root = made
    first = files_of(runs["drawn"], root)[0]
    command.main(["--run", str(runs["drawn"]), str(first), "--out", str(tmp_path)])
    expected = load(runs["drawn"] / "predictions.npz")
    table = pd.read_csv(tmp_path / "predictions.csv")
    np.testing.assert_allclose(table[list(NAMES)].to_numpy()[0], expected.mean[0], atol=2e-6)
    spread = table[[f"{name} ±" for name in NAMES]].to_numpy()[0]
    np.testing.assert_allclose(spread, expected.probabilities.std(axis=0)[0], atol=2e-6)


@pytest.mark.parametrize("flag", ["--mc", "--tta"])
def test_an_image_draws_the_same_whatever_comes_with_it(made, tmp_path, flag):
    runs, _, root = made
    files = [str(path) for path in files_of(runs["deep"], root)]
    tables = []
    for number, given in enumerate((files[:3], files[2:0:-1])):
        out = tmp_path / str(number)
        command.main(["--run", str(runs["deep"]), *given, flag, "3", "--out", str(out)])
        tables.append(pd.read_csv(out / "predictions.csv").set_index("image"))
    shared = tables[1].index
    np.testing.assert_allclose(tables[0].loc[shared], tables[1], atol=2e-6)
    assert (tables[0][f"{NAMES[0]} ±"] > 0).all()


def test_bad_files_get_a_line_each_and_the_others_are_done(made, tmp_path, capsys):
    runs, _, root = made
    good = files_of(runs["chain"], root)[0]
    gray = cv2.imread(str(good), cv2.IMREAD_GRAYSCALE)
    colour = np.stack([gray, gray // 2, 255 - gray], axis=2)
    bad = {
        "colour.png": (colour, "is in colour"),
        "tiny.png": (gray[:20, :20], "20 x 20 pixels"),
        "long.png": (np.hstack([gray] * 3), "144 x 48 pixels, which is not the shape of a chest"),
        "even.png": (np.full_like(gray, 9), "single shade of gray"),
    }
    for name, (pixels, _) in bad.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / "text.png").write_text("no picture")
    cv2.imwrite(str(tmp_path / "three-channels.jpg"), np.stack([gray] * 3, axis=2))
    out = tmp_path / "out"
    given = [str(good), str(tmp_path), str(tmp_path / "absent.png"), "--out", str(out)]
    assert command.main(["--run", str(runs["chain"]), *given]) == 1
    said = capsys.readouterr().err
    for name, (_, why) in bad.items():
        assert any(name in line and why in line for line in said.splitlines())
    assert "text.png cannot be decoded" in said
    assert "absent.png cannot be read" in said
    assert "6 of 8 files were left out" in said
    done = pd.read_csv(out / "predictions.csv")["image"].tolist()
    assert [Path(path).name for path in done] == [good.name, "three-channels.jpg"]


def test_heatmaps_are_a_panel_an_image_and_of_the_fused_networks(made, tmp_path):
    runs, _, root = made
    files = files_of(runs["fusion"], root)[:2]
    copies = [tmp_path / folder / "same.png" for folder in "ab"]
    for path, copy in zip(files, copies, strict=True):
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes())
    given = ["--run", str(runs["fusion"]), *map(str, copies), "--heatmaps", "--out", str(tmp_path)]
    assert command.main(given) == 0
    panels = sorted(tmp_path.glob("*.png"))
    assert [panel.name for panel in panels] == ["same-1.png", "same.png"]
    assert min(cv2.imread(str(panel)).shape[0] for panel in panels) > 600
    assert panels[0].read_bytes() != panels[1].read_bytes()
    rebuilt = rebuild.load(runs["fusion"])
    networks = rebuild.networks(rebuilt)
    images = {each.folder: [rebuild.read(each, files[0])] for each in rebuilt.networks}
    heat = rebuild.heatmaps(rebuilt, networks, images, [2, 0])
    assert heat.shape == (1, 2, 4, 4)
    assert 0 <= heat.min() < heat.max() <= 1


def test_heatmaps_are_of_the_last_map_before_the_pooling():
    """Asadi's head has a convolution of its own; a two-stream network has two maps."""
    deep = classifier.build("tiny", 2, 32, head="asadi2025", dropout=0.5)
    assert rebuild.map_layers(deep) == ["head_conv"]
    assert rebuild.map_layers(classifier.build("tiny", 2, 32)) == ["features"]
    twice = bilinear.build("tiny", 2, 32, streams=2, projection=8)
    assert len(rebuild.map_layers(twice)) == 2


def heads(count: int, outputs: int, probabilities) -> list:
    row = types.SimpleNamespace(readout=Readout(probabilities))
    return rebuild.heads(types.SimpleNamespace(labels=range(count), row=row), outputs)


def test_the_logits_of_a_label_are_its_own():
    def softmax(logits):
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:, :2]

    def last_head(logits):
        return probabilities.sigmoid(logits[:, 4:])

    def both_ends(logits):
        return (probabilities.sigmoid(logits[:, :2]) + probabilities.sigmoid(logits[:, 4:])) / 2

    def chain_rule(logits):
        return hierarchy.path_product(probabilities.sigmoid(logits), np.array([[1, 0], [1, 1]]))

    assert heads(2, 2, probabilities.sigmoid) == [[0], [1]]
    assert heads(2, 3, softmax) == [[0], [1]]
    assert heads(2, 6, last_head) == [[4], [5]]
    assert heads(2, 6, both_ends) == [[0, 4], [1, 5]]
    assert heads(2, 2, chain_rule) == [[0], [1]]


def refused(*given: str) -> int:
    with pytest.raises(SystemExit) as end:
        command.main(list(given))
    return end.value.code


def test_a_folder_without_a_finished_run_is_refused_in_a_sentence(made, tmp_path, capsys):
    runs, _, root = made
    image = str(files_of(runs["chain"], root)[0])
    results = runs["chain"].parents[1]
    assert refused("--run", str(results), image) == 2
    assert "is no run: give the folder of one row and seed" in (said := capsys.readouterr().err)
    assert "seed-0" in said.partition("Below it are")[2]
    out = ["--out", str(tmp_path / "out")]
    assert refused("--run", str(runs["chain"]), "--mc", "3", image, *out) == 2
    assert "tiny has no Dropout layer" in capsys.readouterr().err
    assert command.main(["--run", str(runs["chain"]), image, *out]) == 0  # it took no folder
    (tmp_path / "empty").mkdir()
    assert refused("--run", str(runs["chain"]), str(tmp_path / "empty")) == 2
    assert "There are no .png" in capsys.readouterr().err
    unfinished = tmp_path / "seed-0"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((runs["chain"] / "config.json").read_bytes())
    with pytest.raises(RunError, match="is not finished"):
        rebuild.load(unfinished)


def test_a_rows_folder_stands_for_its_only_finished_run(made, tmp_path, capsys):
    runs, _, root = made
    image = str(files_of(runs["chain"], root)[0])
    row = tmp_path / "chain"
    shutil.copytree(runs["chain"].parent, row)
    given = ["--run", str(row), image, "--out", str(tmp_path / "out")]
    assert command.main(given) == 0
    assert f"{image}: " in capsys.readouterr().out
    shutil.copytree(runs["chain"], row / "seed-1-00000000")
    assert refused(*given) == 2
    assert "is no run: give the folder of one row and seed" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--mc", "1"], ["--tta", "1"], ["--mc", "3", "--tta", "3"]])
def test_senseless_draws_are_refused(words, capsys):
    assert refused("--run", "x", "y.png", *words) == 2
    assert "--tta and --mc" in capsys.readouterr().err


# What is written, and going on


def lines_of(out: Path) -> list[str]:
    return (out / "predictions.csv").read_text("utf-8").splitlines()


def test_a_stopped_command_goes_on_where_it_stopped(made, tmp_path, capsys, monkeypatch):
    runs, _, root = made
    files = [str(path) for path in files_of(runs["chain"], root)][:4]
    given = ["--run", str(runs["chain"]), *files, "--heatmaps"]
    assert command.main([*given, "--out", str(tmp_path / "whole")]) == 0
    drawn, draw = [], command.draw_panel

    def killed_at_the_third(path, *rest):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(path.name)
        draw(path, *rest)

    out = tmp_path / "out"
    monkeypatch.setattr(command, "draw_panel", killed_at_the_third)
    assert refused(*given, "--out", str(out)) == 130
    assert "rerun the command to predict the remaining images" in capsys.readouterr().err
    assert lines_of(out) == lines_of(tmp_path / "whole")[:3]
    with (out / "predictions.csv").open("a") as file:
        file.write(f"{files[2]},0.1")  # a line that a kill cut short
    monkeypatch.setattr(command, "draw_panel", lambda path, *rest: draw(path, *rest))
    assert command.main([*given, "--out", str(out)]) == 0
    assert f"2 of {len(files)} images are done already" in capsys.readouterr().out
    ours, theirs = (pd.read_csv(folder / "predictions.csv") for folder in (out, tmp_path / "whole"))
    assert ours["image"].tolist() == theirs["image"].tolist() == files
    np.testing.assert_allclose(ours[list(NAMES)], theirs[list(NAMES)], atol=1e-6)
    assert len(list(out.glob("*.png"))) == len(files)
    next(out.glob("*.png")).unlink()
    assert command.main([*given, "--out", str(out)]) == 0  # a panel that is gone is drawn again
    assert len(list(out.glob("*.png"))) == len(files)
    assert len(lines_of(out)) == len(files) + 1


def test_an_image_that_changed_is_predicted_again(made, tmp_path):
    runs, _, root = made
    first, second = files_of(runs["chain"], root)[:2]
    image, out = tmp_path / "image.png", tmp_path / "out"
    image.write_bytes(first.read_bytes())
    given = ["--run", str(runs["chain"]), str(image), "--out", str(out)]
    assert command.main(given) == 0
    before = lines_of(out)
    assert command.main(given) == 0
    assert lines_of(out) == before
    image.write_bytes(second.read_bytes())
    later = (out / "predictions.csv").stat().st_mtime + 10
    os.utime(image, (later, later))
    assert command.main(given) == 0
    assert lines_of(out)[1] != before[1]
    assert len(lines_of(out)) == 2


def test_lines_of_two_runs_are_never_mixed(made, tmp_path, capsys):
    runs, _, root = made
    image, out = str(files_of(runs["chain"], root)[0]), ["--out", str(tmp_path)]
    assert command.main(["--run", str(runs["chain"]), image, *out]) == 0
    before = lines_of(tmp_path)
    for other in (["--run", str(runs["fusion"])], ["--run", str(runs["chain"]), "--tta", "2"]):
        assert refused(*other, image, *out) == 2
        assert "another run, or with other flags: give another --out" in capsys.readouterr().err
    (tmp_path / "predictions.json").unlink()
    assert refused("--run", str(runs["chain"]), image, *out) == 2
    assert lines_of(tmp_path) == before


NAMES_OF_FILES = ["$x^{$.png", "胸.png", 'a,b"c.png', "x" * 240 + ".png", "-1.png", "new\nline.png"]


@pytest.mark.parametrize("name", [*NAMES_OF_FILES, os.fsdecode(b"caf\xe9.png")])
def test_any_file_name_is_predicted(made, tmp_path, name, capsys):
    runs, _, root = made
    try:
        (tmp_path / name).write_bytes(files_of(runs["chain"], root)[0].read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    out = tmp_path / "out"
    assert command.main(["--run", str(runs["chain"]), str(tmp_path / name), "--out", str(out)]) == 0
    table = pd.read_csv(out / "predictions.csv")
    assert table["image"].tolist() == [command.shown(tmp_path / name)]
    assert "caf\\xe9.png" in capsys.readouterr().out or "caf" not in name


def test_panels_have_names_that_every_file_system_takes(made, tmp_path):
    runs, _, root = made
    content = files_of(runs["chain"], root)[0].read_bytes()
    for name in ("$x^{$.png", "x" * 240 + ".png"):
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    given = ["--run", str(runs["chain"]), str(tmp_path), "--heatmaps", "--out", str(out)]
    assert command.main(given) == 0
    panels = sorted(path.name for path in out.glob("*.png"))
    assert panels[0] == "$x^{$.png"
    assert panels[1].startswith("x" * 25 + "-")
    assert len(panels[1]) < 50


def test_an_impossible_image_is_left_out_and_an_impossible_folder_refused(made, tmp_path, capsys):
    runs, _, root = made
    good, out = str(files_of(runs["chain"], root)[0]), tmp_path / "out"
    given = ["--run", str(runs["chain"]), good]
    assert command.main([*given, "y" * 300, "--out", str(out)]) == 1
    assert f"left out: {'y' * 300} cannot be read: File name too long" in capsys.readouterr().err
    assert len(lines_of(out)) == 2
    (tmp_path / "file").touch()
    for impossible in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("z" * 300)):
        assert refused(*given, "--out", str(impossible)) == 2
        message = capsys.readouterr()
        assert str(impossible) in message.err
        assert "research" not in message.out  # before any network was built


def test_a_failed_run_says_why(made, tmp_path, capsys):
    (tmp_path / "failed.json").write_text('{"reason": "NaN in epoch 2"}')
    assert refused("--run", str(tmp_path), "x.png") == 2
    assert f"{tmp_path} failed: NaN in epoch 2" in capsys.readouterr().err
