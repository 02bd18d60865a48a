"""Test predictions.npz: files are read as they were written, and invalid files are refused."""

import io
import json
import re
import zipfile

import numpy as np
import pytest

from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions, load, save, truth_digest
from evaluation.probabilities import sigmoid

LABELS = ("Edema", "Mass", "Nodule")


def made(images=40, members=2, seed=0) -> Predictions:
    random = np.random.default_rng(seed)
    targets = (random.random((images, len(LABELS))) < 0.3).astype(np.float32)
    targets[0, 1] = np.nan
    return Predictions(
        ids=np.array([f"images/{number:05d}.png" for number in range(images)]),
        patients=np.array([f"patient {number // 2}" for number in range(images)]),
        labels=np.array(LABELS),
        targets=targets,
        probabilities=sigmoid(random.normal(size=(members, images, len(LABELS)))),
        meta={"row": "HLCP", "seed": 0},
    )


def same(one: Predictions, other: Predictions) -> bool:
    arrays = zip(one[:-1], other[:-1], strict=True)
    return one.meta == other.meta and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in arrays
    )


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "predictions.npz", made())
    return tmp_path / "predictions.npz"


def write(path, **changes):
    """Write a file without a digest, with arrays changed or, for None, left out."""
    arrays = {**made()._asdict(), "meta": json.dumps(made().meta)} | changes
    with path.open("wb") as file:
        np.savez(file, **{name: each for name, each in arrays.items() if each is not None})
    return path


def refusal(path, **options) -> str:
    with pytest.raises(EvaluationError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_written_is_read_again(path):
    assert same(load(path), made())
    assert same(load(path, require_digest=True), made())
    first = path.read_bytes()
    save(path, made())
    assert path.read_bytes() == first


def test_order_survives_where_float32_makes_ties(tmp_path):
    """20,000 float32 logits N(18, 2) keep their number of distinct values and their order."""
    logits = np.random.default_rng(0).normal(18, 2, (20_000, 1)).astype(np.float32)
    example = made(len(logits))._replace(
        labels=np.array(["Edema"]),
        targets=np.zeros((len(logits), 1), np.float32),
        probabilities=sigmoid(logits)[None],
    )
    save(tmp_path / "a.npz", example)
    stored = load(tmp_path / "a.npz").mean[:, 0]
    assert len(np.unique(stored)) == len(np.unique(logits))
    rising = np.argsort(logits[:, 0], kind="stable")
    np.testing.assert_array_equal(np.argsort(stored, kind="stable"), rising)
    assert len(np.unique(stored.astype(np.float32))) < 200  # what float32 left of them


def test_the_mean_over_members_is_of_probabilities():
    example = made()._replace(probabilities=np.array([[[0.2]], [[0.6]]]))
    np.testing.assert_allclose(example.mean, [[0.4]])


def test_files_of_before_are_read_where_no_digest_is_demanded(tmp_path):
    older = made().probabilities.astype(np.float32)
    example = load(write(tmp_path / "old.npz", probabilities=older))
    np.testing.assert_array_equal(example.probabilities, older)
    assert example.probabilities.dtype == np.float64
    message = refusal(tmp_path / "old.npz", require_digest=True)
    assert "no digest" in message
    assert "delete it and rerun the command" in message


def test_a_changed_number_is_found_even_where_every_checksum_of_the_archive_fits(tmp_path, path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["probabilities"][0, 3, 1] += 1e-9
    np.savez_compressed(path, **arrays)
    assert "does not match its digest" in refusal(path)
    arrays = {**arrays, "meta": np.asarray('{"row": "HLUP"}')}
    arrays["probabilities"] = made().probabilities
    np.savez_compressed(path, **arrays)
    assert "does not match its digest" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"patients": None}, "it lacks patients"),
        ({"meta": None, "ids": None}, "it lacks ids, meta"),
        ({"ids": np.linspace(0, 1, 40)}, "ids are of the type float64"),
        ({"labels": np.arange(3)}, "labels are of the type int64"),
        ({"targets": np.full((40, 3), "1")}, "targets are of the type <U1"),
        ({"probabilities": np.zeros((2, 40, 3), int)}, "probabilities are of the type int64"),
        ({"meta": np.zeros(())}, "meta are of the type float64"),
        ({"ids": np.full((40, 1), "a")}, "ids have 2 dimensions instead of 1"),
        ({"probabilities": np.zeros((40, 3))}, "probabilities have 2 dimensions instead of 3"),
        ({"meta": np.array(["{}"])}, "meta have 1 dimensions instead of 0"),
        ({"ids": np.array([f"{i}" for i in range(41)])}, r"patients have the shape \(40,\)"),
        ({"patients": np.array(["a"])}, r"patients have the shape \(1,\) instead of \(40,\)"),
        ({"targets": np.zeros((40, 2))}, r"targets have the shape \(40, 2\)"),
        ({"targets": np.zeros(40)}, r"targets have the shape \(40,\)"),
        ({"probabilities": np.zeros((2, 40, 4))}, r"probabilities have the shape \(2, 40, 4\)"),
        ({"probabilities": np.zeros((0, 40, 3))}, "40 images, 3 labels and 0 members"),
        ({"labels": np.array(["Edema", "Mass", "Edema"])}, "labels contain 'Edema' more than once"),
        ({"ids": np.array(["a", "a", *map(str, range(38))])}, "ids contain 'a' more than once"),
        ({"targets": np.full((40, 3), -1.0)}, "120 targets are not 0, 1 or NaN, such as -1"),
        ({"targets": np.full((40, 3), 0.5)}, "such as 0.5"),
        ({"probabilities": np.full((2, 40, 3), np.nan)}, "240 of 240 probabilities are NaN"),
        ({"probabilities": np.full((1, 40, 3), 1.0001)}, "outside .0, 1., such as 1.0001"),
        ({"probabilities": np.full((1, 40, 3), -0.5)}, "such as -0.5"),
        ({"meta": "{"}, "meta is not JSON"),
        ({"meta": "[1]"}, "meta is not a JSON object"),
        ({"ids": np.array([None] * 40, object)}, "pickle|Object arrays"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(tmp_path, changes, expected):
    message = refusal(write(tmp_path / "wrong.npz", **changes))
    assert re.search(expected, message), message


def test_numbers_may_be_integers_and_bounds_are_probabilities(tmp_path):
    ends = np.zeros((1, 40, 3))
    ends[0, 0, 0] = 1
    example = load(
        write(tmp_path / "a.npz", ids=np.arange(40), targets=np.ones((40, 3), int),
              probabilities=ends)
    )  # fmt: skip
    assert example.ids[3] == "3"
    assert example.targets.dtype == np.float32


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_other_kinds_of_files_are_refused(tmp_path, path):
    encrypted, other_method = bytearray(path.read_bytes()), bytearray(path.read_bytes())
    for at in (6, encrypted.index(b"PK\x01\x02") + 8):
        encrypted[at] |= 1  # the flag of an encrypted member
    other_method[other_method.index(b"PK\x01\x02") + 10] = 99
    contents = [b"", b"junk", b"PK\x03\x04", npy(np.zeros(3)), b"\x80\x04N.", bytes(encrypted),
                bytes(other_method), path.read_bytes()[:-1]]  # fmt: skip
    for content in contents:
        (tmp_path / "other.npz").write_bytes(content)
        message = refusal(tmp_path / "other.npz")
        assert "is no predictions file of this suite" in message
        assert "rerun the command" in message
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("ids.npy", b"no array")
    refusal(tmp_path / "other.npz")
    assert "There is no predictions file" in refusal(tmp_path / "missing.npz")
    assert "is not a file" in refusal(tmp_path)


def test_300_flipped_bits_and_100_truncations_never_pass_with_other_numbers(path):
    """Each file is refused, or read as the same predictions if only a time stamp changed."""
    whole, expected, refused = path.read_bytes(), made(), 0
    random = np.random.default_rng(7)
    damaged = []
    for _ in range(300):
        content = bytearray(whole)
        position = random.integers(len(content))
        content[position] ^= 1 << int(random.integers(8))
        damaged.append(bytes(content))
    damaged += [whole[: int(random.integers(len(whole)))] for _ in range(100)]
    for content in damaged:
        path.write_bytes(content)
        try:
            assert same(load(path), expected)
        except EvaluationError as error:
            refused += str(path) in str(error)
    assert refused > 350  # the rest read as what was written


def test_save_refuses_what_load_would(tmp_path):
    wrong = made().probabilities.copy()
    wrong[1, 2, 0] = np.nan
    with pytest.raises(EvaluationError, match="1 of 240 probabilities are NaN"):
        save(tmp_path / "a.npz", made()._replace(probabilities=wrong))
    assert not list(tmp_path.iterdir())


def test_truth_digest_knows_images_labels_and_targets_but_not_the_order_of_images():
    example = made()
    digest = truth_digest(example.ids, example.targets, example.labels)
    turned = truth_digest(example.ids[::-1], example.targets[::-1].astype(float), [*LABELS])
    assert turned == digest
    other = example.targets.copy()
    other[5, 2] = 1 - other[5, 2]
    unknown = example.targets.copy()
    unknown[5, 2] = np.nan
    changed = {
        truth_digest(example.ids, other, LABELS),
        truth_digest(example.ids, unknown, LABELS),
        truth_digest(example.ids[::-1], example.targets, LABELS),
        truth_digest(example.ids, example.targets, LABELS[::-1]),
        truth_digest(np.char.add(example.ids, "x"), example.targets, LABELS),
        digest,
    }
    assert len(changed) == 6


def test_pooled_studies_have_one_truth():
    example = made(4)
    studies = ["b", "a", "b", "a"]
    targets = np.array([[1, 0, 0], [0, 1, np.nan]] * 2, np.float32)
    pooled = predictions.pooled(example._replace(targets=targets), studies)
    assert pooled.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(pooled.targets, targets[[1, 0]])
    np.testing.assert_allclose(
        pooled.probabilities[:, 0], example.probabilities[:, [1, 3]].mean(axis=1)
    )
    largest = predictions.pooled(example._replace(targets=targets), studies, np.max)
    np.testing.assert_array_equal(
        largest.probabilities[:, 1], example.probabilities[:, [0, 2]].max(axis=1)
    )
    assert pooled.patients.tolist() == example.patients[[1, 0]].tolist()
    targets = targets.copy()
    targets[2, 0] = 0
    with pytest.raises(EvaluationError, match="different truths"):
        predictions.pooled(example._replace(targets=targets), studies)
