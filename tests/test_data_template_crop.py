"""The lung crop: recovered shifts, agreement with OpenCV, saved templates."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data import DataError, template_crop
from data.phantom import drawing
from data.phantom.film import sample_pose
from data.phantom.layouts import Shot

FROM, TO = 256, 224
ROOM = FROM - TO


def film(number: int, shift=None) -> np.ndarray:
    """Return a phantom in its own pose, or with the pose's shift replaced by one in pixels."""
    pose = sample_pose(np.random.default_rng(number), "PA")
    if shift is not None:
        # A collimator's frame belongs to the film and would not move with the patient.
        across, down = shift
        pose = replace(pose, shift=(across / FROM, down / FROM), borders=(0, 0, 0, 0))
    shot = Shot("", number, number, number % 2 == 0, "PA", ())
    return drawing.draw(shot, FROM, seed=3, pose=pose)[0]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> np.ndarray:
    root = tmp_path_factory.mktemp("training")
    names = [f"{k}.png" for k in range(60)]
    for k, name in enumerate(names):
        cv2.imwrite(str(root / name), film(k))
    return template_crop.build(root, names, FROM, TO)


def test_planted_shifts_are_recovered_within_2_px(template):
    rng, errors = np.random.default_rng(0), []
    for number in range(1000, 1060):
        shift = rng.integers(-ROOM // 2, ROOM // 2 + 1, 2)
        top, left = template_crop.locate(film(number, (0, 0)), template)
        wanted = np.array([top + shift[1], left + shift[0]])
        if (wanted < 0).any() or (wanted > ROOM).any():
            continue  # the crop cannot follow so far
        corner = template_crop.locate(film(number, shift), template)
        errors.append(np.abs(np.array(corner) - wanted).max())
    assert len(errors) > 40
    assert np.mean(np.array(errors) <= 2) >= 0.95


@pytest.mark.parametrize(("size", "crop"), [(64, 56), (65, 31), (20, 20)])
def test_any_sizes_match_opencv(size, crop):
    rng = np.random.default_rng(size)
    image, template = (rng.integers(0, 256, (n, n), np.uint8) for n in (size, crop))
    ours = template_crop.similarity(image, template)
    theirs = cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED)
    assert ours.shape == theirs.shape == (size - crop + 1, size - crop + 1)
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize(("top", "left"), [(0, 0), (32, 32), (5, 30)])
def test_a_template_cut_from_the_image_is_found_where_it_was(template, top, left):
    image = film(11)
    part = np.ascontiguousarray(image[top : top + TO, left : left + TO])
    assert template_crop.locate(image, part) == (top, left)
    assert np.array_equal(template_crop.crop(image, part), part)


def test_flat_images_and_templates_are_handled(template):
    flat = np.full((FROM, FROM), 9, np.uint8)
    assert (template_crop.similarity(flat, template) == 0).all()
    assert template_crop.crop(flat, template).shape == (TO, TO)
    assert np.isfinite(template_crop.similarity(film(1), flat[:TO, :TO])).all()


def test_the_template_is_the_centre_of_the_mean(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)
    names = [f"{k}.png" for k in range(5)]
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(tmp_path / name), image)
    built = template_crop.build(tmp_path, names, 64, 56)
    assert np.array_equal(built, images[:, 4:60, 4:60].mean(0).round().astype(np.uint8))
    two = template_crop.build(tmp_path, names, 64, 56, limit=2)
    assert np.array_equal(two, images[[0, 4], 4:60, 4:60].mean(0).round().astype(np.uint8))


def test_corrupt_training_images_stop_the_template_unless_skipped(tmp_path):
    good = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    cv2.imwrite(str(tmp_path / "good.png"), good)
    (tmp_path / "bad.png").write_bytes(b"")
    names = ["good.png", "bad.png"]
    with pytest.raises(DataError, match=r"bad\.png is empty"):
        template_crop.build(tmp_path, names, 64, 56)
    built = template_crop.build(tmp_path, names, 64, 56, skip_corrupt=True)
    assert np.array_equal(built, good[4:60, 4:60])


def test_a_saved_template_comes_back_or_is_refused(template, tmp_path):
    path = tmp_path / "template.npz"
    template_crop.save(path, template, images=60)
    assert np.array_equal(template_crop.load(path), template)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="holds no template"):
        template_crop.load(path)
    np.savez(path, template=template, about='{"version": 1, "sha256": "of another"}')
    with pytest.raises(DataError, match="damaged"):
        template_crop.load(path)
    with pytest.raises(DataError, match="at least one"):
        template_crop.build(tmp_path, [])


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"[]", None, "array"], ids=["empty", "junk", "json", "cut", "array"]
)
def test_a_damaged_template_is_made_again_with_one_line(template, tmp_path, capsys, content):
    path = tmp_path / "templates" / "224px.npz"
    made = []

    def make():
        made.append(1)
        return template

    assert np.array_equal(template_crop.load_or_make(path, make, images=60), template)
    assert np.array_equal(template_crop.load_or_make(path, make, images=60), template)
    assert len(made) == 1
    whole = path.read_bytes()
    if content == "array":
        np.savez(path, template=np.zeros(3), about="[]")
    else:
        path.write_bytes(whole[:200] if content is None else content)
    with pytest.raises(DataError, match="holds no template"):
        template_crop.load(path)
    assert capsys.readouterr().err == ""
    assert np.array_equal(template_crop.load_or_make(path, make, images=60), template)
    assert capsys.readouterr().err == f"{path} is damaged; the template is made again.\n"
    assert len(made) == 2
    assert list(path.parent.iterdir()) == [path]


def test_any_flipped_bit_of_a_template_is_found_or_harmless(template, tmp_path):
    path = tmp_path / "template.npz"
    template_crop.save(path, template)
    whole = path.read_bytes()
    flips = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        content[flips.integers(len(content))] ^= 1 << int(flips.integers(8))
        path.write_bytes(content)
        try:
            assert np.array_equal(template_crop.load(path), template)
        except DataError:
            continue
