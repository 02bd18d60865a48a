"""A finished run on files: the same bits as its cache, every kind of row, and what is refused."""

import argparse
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import losses
from data import label_tree, labels
from data.augment import Augment
from evaluation import hierarchy, predict
from reproduce import RunError, rebuild, run
from reproduce import predict as command

NAMES = ["Abnormal", "Cardiac", "Cardiomegaly"]
PARENTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
TTA = Augment(flip=True, degrees=5)


@dataclass(frozen=True)
class Config:
    backbone: str = "tiny"
    weights: str = "imagenet"  # the run's own weights are read, nothing is fetched
    size: int = 32
    batch_size: int = 4
    precision: str = "float32"


def rows(config, options, frame: pd.DataFrame) -> list:
    """Chain rule; the same with drawn views; a deep head with dropout, uncropped; their fusion."""
    truth = frame[["Cardiomegaly"] * 3].to_numpy(np.float32)
    ancestors = PARENTS @ PARENTS + PARENTS + np.eye(3)

    def row(name, **more):
        settings = {"select": lambda *_: 0, "epochs": 1, "learning_rate": lambda *_: 1e-3}
        settings["network"] = {"weights": "none"}
        loss = losses.masking.MaskedBCE
        return run.Row(name, NAMES, truth, truth, lambda: loss(), **settings | more)

    def chain_rule(logits):
        return hierarchy.path_product(predict.sigmoid(logits), ancestors)

    deep = {"weights": "none", "head": "asadi2025", "dropout": 0.5}
    return [
        row("chain", probabilities=chain_rule),
        row("drawn", epochs=0, start_from="chain", passes=predict.drawn(TTA, 2)),
        row("deep", network=deep, data=getattr(options, "template_data", None)),
        run.Combined("fusion", ["chain", "deep"]),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(runs by row, Data by row, folder of images): trained for an epoch on a few phantoms."""
    place = tmp_path_factory.mktemp("predict")
    script = types.ModuleType("reproduce.toy2020")
    script.Config, script.rows = Config, rows
    sys.modules["reproduce.toy2020"] = script
    drawing.write("chestxray14", place / "images", 40, 48, seed=3, progress=False)
    options = argparse.Namespace(
        dataset="chestxray14", data_dir=place / "images", allow_missing=False, skip_corrupt=False,
        cache_dir=place / "cache", results_dir=place / "results", rows=None, seeds=(0,),
        device="auto", fast=True, jit=False,
    )  # fmt: skip
    frame = run.read(options, Config(), 0)
    attrs = frame.attrs
    frame = frame.assign(split=np.resize(["train", "test", "val", "train"], len(frame)))
    whole = run.decode(options, frame, attrs, 38)
    cut = run.decode(options, frame, attrs, 38, window=32)
    asked = argparse.Namespace(**vars(options), template_data=lambda: cut)
    runs = run.train("toy2020", rows(Config(), asked, whole.frame), whole, Config(), options)
    by_row = {each.row.name: each.folder for each in runs}
    yield by_row, {"chain": whole, "deep": cut}, place / "images"
    del sys.modules["reproduce.toy2020"]


def files_of(folder: Path, root: Path) -> list[Path]:
    return [root / name for name in predict.load(folder / "predictions.npz").ids]


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
    expected = predict.load(runs[row] / "predictions.npz")
    np.testing.assert_allclose(table[NAMES], expected.mean, atol=1.1e-6)  # six decimals
    assert table["image"].tolist() == [str(path) for path in files]
    rebuilt = rebuild.load(runs[row])
    networks = rebuild.networks(rebuilt)
    images = {
        each.folder: [rebuild.read(each, path) for path in files] for each in rebuilt.networks
    }
    found = rebuild.predictions(rebuilt, networks, images, files, None)
    np.testing.assert_array_equal(found.probabilities.astype(np.float32), expected.probabilities)
    assert (f"{NAMES[0]} ±" in table) == (row == "fusion")


def test_a_row_without_weights_of_its_own_draws_as_it_did(made, tmp_path):
    """Its draws are of the first place in the test set: that image is the same, and comes alone."""
    runs, _, root = made
    first = files_of(runs["drawn"], root)[0]
    command.main(["--run", str(runs["drawn"]), str(first), "--out", str(tmp_path)])
    expected = predict.load(runs["drawn"] / "predictions.npz")
    table = pd.read_csv(tmp_path / "predictions.csv")
    np.testing.assert_allclose(table[NAMES].to_numpy()[0], expected.mean[0], atol=2e-6)
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
        "long.png": (np.hstack([gray] * 3), "144 x 48 pixels, which is no chest"),
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


def heads(count: int, outputs: int, probabilities) -> list:
    of = types.SimpleNamespace(probabilities=probabilities)
    return rebuild.heads(types.SimpleNamespace(labels=range(count), row=of), outputs)


def test_the_logits_of_a_label_are_its_own():
    def softmax(logits):
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:, :2]

    def last_head(logits):
        return predict.sigmoid(logits[:, 4:])

    def both_ends(logits):
        return (predict.sigmoid(logits[:, :2]) + predict.sigmoid(logits[:, 4:])) / 2

    def chain_rule(logits):
        return hierarchy.path_product(predict.sigmoid(logits), np.array([[1, 0], [1, 1]]))

    assert heads(2, 2, predict.sigmoid) == [[0], [1]]
    assert heads(2, 3, softmax) == [[0], [1]]
    assert heads(2, 6, last_head) == [[4], [5]]
    assert heads(2, 6, both_ends) == [[0, 4], [1, 5]]
    assert heads(2, 2, chain_rule) == [[0], [1]]


def test_trees_are_found_by_their_labels():
    whole = command.tree_of(list(labels.ASADI))
    edges = label_tree.parent_matrix(label_tree.ASADI)
    assert ((whole > 0) <= (edges > 0)).all()
    assert edges.sum() - whole.sum() == 2  # two pairs are implied: over the deeper parent
    found = command.tree_of(["Abnormal", "Infiltration", "Nodule"])  # what lies between is absent
    assert np.argwhere(found).tolist() == [[1, 0], [2, 0]]
    assert not command.tree_of(["never", "heard"]).any()


def refused(*given: str) -> int:
    with pytest.raises(SystemExit) as end:
        command.main(list(given))
    return end.value.code


def test_what_is_no_finished_run_is_a_sentence(made, tmp_path, capsys):
    runs, _, root = made
    image = str(files_of(runs["chain"], root)[0])
    results = runs["chain"].parents[1]
    assert refused("--run", str(results), image) == 2
    assert "is no run: give the folder of one row and seed" in (said := capsys.readouterr().err)
    assert "seed-0" in said.partition("Below it lie")[2]
    assert refused("--run", str(runs["chain"]), "--mc", "3", image) == 2
    assert "tiny has no Dropout layer" in capsys.readouterr().err
    assert refused("--run", str(runs["chain"]), str(tmp_path)) == 2
    assert "There are no .png" in capsys.readouterr().err
    unfinished = tmp_path / "seed-0"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((runs["chain"] / "config.json").read_bytes())
    with pytest.raises(RunError, match="is not finished"):
        rebuild.load(unfinished)


@pytest.mark.parametrize("words", [["--mc", "1"], ["--tta", "1"], ["--mc", "3", "--tta", "3"]])
def test_senseless_draws_are_refused(words, capsys):
    assert refused("--run", "x", "y.png", *words) == 2
    assert "--tta and --mc" in capsys.readouterr().err
