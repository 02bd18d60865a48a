"""Augmentation: agreement with tensorflow-addons, exact draws, and independence of the batch."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import augment
from data.augment import AS_STORED, Augment, affine, apply, shade, uniforms, warp

GOLDEN = np.load(Path(__file__).parent / "golden" / "tfa.npz")
PICTURE = GOLDEN["image"]
SIZE = len(PICTURE)


@pytest.mark.parametrize(
    ("golden", "change"),
    [
        ("rotate 7.0", {"degrees": 7.0}),
        ("rotate -7.0", {"degrees": -7.0}),
        ("rotate 2.5", {"degrees": 2.5}),
        ("translate 2.25 -3.5", {"left": -2.25, "top": 3.5}),
    ],
)
def test_rotation_and_shift_agree_with_tensorflow_addons(golden, change):
    assert np.abs(warp(PICTURE, affine(SIZE, **change), SIZE) - GOLDEN[golden]).max() < 0.01


def test_shearing_agrees_with_tensorflow_addons():
    # tfa shears about the top row: at this level that is ours, about the centre, one column on.
    nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    matrix = affine(SIZE, shear=0.05)
    sheared = cv2.warpAffine(PICTURE.astype(np.uint8), matrix, (SIZE, SIZE), flags=nearest)
    same = sheared[:, 3:-2] == GOLDEN["shear_x 0.05"][:, 2:-3]
    assert same.mean() > 0.97  # pixels half-way between two may go to either


@pytest.mark.parametrize("flip", [False, True])
def test_all_together_agree_with_tensorflow_addons(flip):
    matrix = affine(SIZE, flip=flip, degrees=7.0, scale=1.02, shear=5 / 224)
    assert np.allclose(matrix.ravel(), GOLDEN[f"composed {flip:d} matrix"][:6], atol=1e-5)
    golden = GOLDEN[f"composed {flip:d}"]
    assert np.abs(warp(PICTURE, matrix, SIZE) - golden).max() < 0.01
    whole = warp(PICTURE.astype(np.uint8), matrix, SIZE)  # as the pipeline does it
    assert np.abs(whole - golden).max() <= 0.51


def test_the_identity_and_mirrors_are_exact():
    assert np.array_equal(affine(SIZE), [[1, 0, 0], [0, 1, 0]])
    assert np.array_equal(warp(PICTURE, affine(SIZE), SIZE), PICTURE)
    assert np.array_equal(warp(PICTURE, affine(SIZE, flip=True), SIZE), PICTURE[:, ::-1])
    assert np.array_equal(warp(PICTURE, affine(SIZE, upside_down=True), SIZE), PICTURE[::-1])


@given(
    st.booleans(),
    st.floats(-30, 30),
    st.floats(0.8, 1.2),
    st.floats(-0.2, 0.2),
)
@settings(max_examples=50, deadline=None)
def test_the_centre_stays_and_areas_scale(flip, degrees, scale, shear):
    matrix = affine(224, flip, degrees, scale, shear)
    centre = np.array([111.5, 111.5])
    assert np.allclose(matrix[:, :2] @ centre + matrix[:, 2], centre)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx((1 - 2 * flip) / scale**2)


def test_draws_depend_on_each_of_seed_epoch_and_index_alone():
    index = np.arange(1000)
    base = uniforms(7, 3, index, 4)
    assert np.array_equal(uniforms(7, 3, index[::-1], 4), base[::-1])
    assert np.array_equal(uniforms(7, 3, index[5:9], 2), base[5:9, :2])
    for other in (uniforms(8, 3, index, 4), uniforms(7, 4, index, 4), uniforms(3, 7, index, 4)):
        assert not np.intersect1d(base, other).size


def test_draws_are_uniform_and_uncorrelated():
    draws = np.concatenate([uniforms(0, epoch, np.arange(5000), 4) for epoch in range(4)])
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in draws.T])
    chi_squared = ((counts - 1000) ** 2 / 1000).sum(1)  # 19 degrees of freedom
    assert (chi_squared < 50).all()
    along_index = np.corrcoef(draws[:-1].T, draws[1:].T)
    assert np.abs(along_index - np.eye(8)).max() < 0.04


def test_negative_and_huge_seeds_are_fine():
    assert uniforms(-1, 0, np.arange(3), 2).shape == (3, 2)
    assert uniforms(2**63 + 5, 0, np.arange(3), 2).shape == (3, 2)


@pytest.fixture
def numbered() -> np.ndarray:
    """Return 300 images whose pixels hold their column (even images) or row (odd images)."""
    y, x = np.mgrid[:20, :20]
    return np.stack([x, y] * 150).astype(np.uint8)


def test_by_default_the_centre_is_cropped(numbered):
    out = apply(numbered[:2], 16)
    assert np.array_equal(out[..., 0], numbered[:2, 2:18, 2:18])
    assert np.array_equal(apply(numbered[:2], 20)[..., 0], numbered[:2])


def test_random_crops_reach_every_position_and_are_whole_windows(numbered):
    draw = Augment(random_crop=True)
    out = apply(numbered, 16, draw, index=np.arange(300) // 2)[..., 0].astype(int)
    left, top = out[::2, 0, 0], out[1::2, 0, 0]
    assert {(a, b) for a, b in zip(left, top, strict=True)} >= {(0, 0), (4, 4), (0, 4), (4, 0)}
    assert set(left) == set(top) == {0, 1, 2, 3, 4}
    assert (np.diff(out[::2], axis=2) == 1).all()
    assert (np.diff(out[1::2], axis=1) == 1).all()


def test_upside_down_is_drawn_independently_of_the_mirror():
    both = apply(np.repeat(PICTURE[None], 400, 0), SIZE, Augment(flip=True, upside_down=True))
    kinds = (PICTURE, PICTURE[:, ::-1], PICTURE[::-1], PICTURE[::-1, ::-1])
    counts = [sum(np.array_equal(image, kind) for image in both[..., 0]) for kind in kinds]
    assert sum(counts) == 400
    assert min(counts) > 70


def test_shifts_reach_but_do_not_pass_their_bound_along_both_axes():
    point = np.zeros((400, 41, 41), np.uint8)
    point[:, 20, 20] = 255
    moved = apply(point, 41, Augment(shift=0.1))[..., 0].astype(float)
    grid = np.arange(41) - 20
    across, along = (moved.sum(axis) @ grid / moved.sum((1, 2)) for axis in (1, 2))
    for shift in (across, along):
        assert np.abs(shift).max() < 0.1 * 41 + 0.05
        assert shift.min() < -3.7
        assert shift.max() > 3.7
    assert abs(np.corrcoef(across, along)[0, 1]) < 0.2


def test_affine_draws_take_their_surroundings_from_the_larger_image():
    white = np.full((4, 64, 64), 255, np.uint8)
    draw = Augment(random_crop=False, degrees=7, scale=0.02, shear=5 / 224)
    assert (apply(white, 48, draw) == 255).all()
    assert (apply(white, 64, draw)[:, 0, 0, 0] == 0).any()  # nothing is known outside: black


def test_crops_and_affine_maps_share_mirror_and_position(numbered):
    plain = Augment(random_crop=True, flip=True)
    barely = Augment(random_crop=True, flip=True, degrees=1e-7)
    assert np.array_equal(apply(numbered, 16, plain), apply(numbered, 16, barely))


@pytest.mark.parametrize("degrees", [0, 7])
def test_draws_do_not_depend_on_the_batch(numbered, degrees):
    draw = Augment(random_crop=True, flip=True, degrees=degrees)
    whole = apply(numbered, 16, draw, seed=3, epoch=2)
    for some in (np.array([5, 299, 17]), np.array([7])):
        assert np.array_equal(apply(numbered[some], 16, draw, 3, 2, some), whole[some])
    assert not np.array_equal(apply(numbered, 16, draw, 3, 1), whole)


def test_read_only_and_float_images_work():
    image = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    image.flags.writeable = False
    assert np.array_equal(apply(image, 8, AS_STORED)[..., 0], image)
    assert apply(image, 8, Augment(flip=True, degrees=3)).dtype == np.float32


def test_one_of_four_at_a_time_is_that_one_alone():
    """Each image is mirrored, turned, magnified or sheared by its own draw, and nothing else."""
    one = Augment(flip=True, degrees=7, scale=0.02, shear=0.05, one_of=True)
    count = 400
    drawn = apply([PICTURE] * count, SIZE, one)[..., 0]
    draws = uniforms(0, 0, np.arange(count), 12)
    amounts = (2 * draws[:, 3:6] - 1) * [7, 0.02, 0.05]
    kinds = (4 * draws[:, 11]).astype(int)
    for image, kind, (degrees, scale, shear) in zip(drawn, kinds, amounts, strict=True):
        alone = (
            {"flip": True},
            {"degrees": degrees},
            {"scale": 1 + scale},
            {"shear": shear},
        )[kind]
        np.testing.assert_array_equal(image, warp(PICTURE, affine(SIZE, **alone), SIZE))
    shares = np.bincount(kinds, minlength=4) / count
    assert (np.abs(shares - 0.25) < 4 * (0.25 * 0.75 / count) ** 0.5).all()


def test_brightness_and_contrast_by_hand():
    image = np.array([[10, 90], [100, 200]], np.uint8)  # mean 100
    assert shade(image, 0.1, 1.0).tolist() == [[36, 116], [126, 226]]  # 25.5 more, ties to even
    assert shade(image, -0.1, 1.0).tolist() == [[0, 64], [74, 174]]  # saturates at black
    assert shade(image, 0.0, 1.1).tolist() == [[1, 89], [100, 210]]  # 1, 89, 100, 210
    assert shade(image, 0.0, 0.9).tolist() == [[19, 91], [100, 190]]
    assert shade(image, 0.2, 1.1).tolist() == [[52, 140], [151, 255]]  # 51 more; white at 261
    assert np.array_equal(shade(image, 0.0, 1.0), image)


def test_brightness_and_contrast_agree_with_tensorflow():
    tf = pytest.importorskip("tensorflow")
    image = np.random.default_rng(0).integers(60, 190, (32, 32), np.uint8)
    scaled = tf.constant(image[..., None] / 255.0)
    brighter = tf.image.adjust_brightness(scaled, 0.07)
    theirs = tf.image.adjust_contrast(brighter, 0.93).numpy()[..., 0] * 255
    assert np.abs(shade(image, 0.07, 0.93) - theirs).max() < 0.5 + 1e-9


def test_brightness_and_contrast_are_drawn_last_and_fill_their_ranges():
    images = [np.tile(np.uint8([100, 150]), (8, 4))] * 400  # mean 125
    plain = Augment(flip=True, upside_down=True)
    both = Augment(flip=True, upside_down=True, brightness=0.1, contrast=0.1)
    drawn = uniforms(3, 5, np.arange(400), 11)
    before, after = (apply(images, 8, each, seed=3, epoch=5) for each in (plain, both))
    for k in range(400):
        added, factor = 0.1 * (2 * drawn[k, 9] - 1), 1 + 0.1 * (2 * drawn[k, 10] - 1)
        assert np.array_equal(after[k, ..., 0], shade(before[k, ..., 0], added, factor))
    means = after.mean((1, 2, 3)) - 125
    assert -26 <= means.min() < -23
    assert 23 < means.max() <= 26
    spread = np.ptp(after.astype(int), axis=(1, 2, 3))
    assert (spread.min(), spread.max()) == (45, 55)


def test_the_draws_never_change_between_versions():
    expected = [
        [0.1102408451, 0.8980514384, 0.4337364730],
        [0.5103429716, 0.2922319964, 0.1253855251],
    ]
    np.testing.assert_allclose(uniforms(1, 2, np.array([3, 10**6]), 3), expected, atol=1e-9)


def test_the_hash_is_splitmix64():
    """These are the first numbers of its authors' C code with the seed 1234567."""
    state = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * augment._STEP
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert augment._mixed(state).tolist() == expected
