"""Reading images: every format and depth, and the reasons for refusing a file."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from data import BadImage, images
from data.images import read_gray, resize, unlike_radiograph


def encoded(array, kind="PNG", **options) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written(tmp_path, content: bytes, name="image"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.fixture
def gray() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 9), np.uint8), (96, 96))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_gray_image_is_averaged_over_areas(tmp_path, gray, kind):
    small = read_gray(written(tmp_path, encoded(gray, kind)), 32)
    means = gray.reshape(32, 3, 32, 3).mean((1, 3))
    assert small.shape == (32, 32)
    assert small.dtype == np.uint8
    assert np.abs(small - means).max() <= 0.51


def test_an_image_of_the_right_size_is_kept_byte_for_byte(tmp_path, gray):
    assert np.array_equal(read_gray(written(tmp_path, encoded(gray)), 96), gray)


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "LA", "P", "I;16"], ids=["rgb", "rgba", "gray-alpha", "palette", "16"]
)
def test_one_gray_picture_reads_the_same_in_every_mode(tmp_path, gray, mode):
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image = Image.fromarray(gray).convert(mode)
        image.putalpha(7)  # transparency is dropped, not blended
    else:
        image = Image.fromarray(gray).convert(mode)
    read = read_gray(written(tmp_path, encoded(image)), 96)
    assert np.abs(read.astype(int) - gray).max() <= 1


def test_colour_becomes_luma(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    blocks = np.kron(colours, np.ones((8, 2, 1), np.uint8))  # 8x8 with four stripes
    read = read_gray(written(tmp_path, encoded(blocks)), 8)
    assert np.allclose(read[0, ::2], [76, 150, 29, 255], atol=1)


def test_a_palette_is_looked_up_not_taken_as_gray(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 200, 200])
    assert (read_gray(written(tmp_path, encoded(image)), 8) == 200).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_one_bit_images_are_black_and_white(tmp_path, gray, kind):
    read = read_gray(written(tmp_path, encoded(Image.fromarray(gray > 127), kind)), 96)
    assert np.array_equal(read, np.where(gray > 127, 255, 0))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_files_keep_the_contrast_of_their_real_depth(tmp_path, bits, kind):
    top = 2**bits - 1
    ramp = np.linspace(0, top, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    read = read_gray(written(tmp_path, encoded(ramp, kind)), 64)
    assert np.abs(read - ramp / top * 255).max() <= 0.51


def test_a_dark_12_bit_scan_is_not_stretched_to_its_own_maximum(tmp_path):
    scan = np.full((16, 16), 2048, np.uint16)  # needs 12 bits, is half as bright as they hold
    assert (read_gray(written(tmp_path, encoded(scan)), 16) == 128).all()


@pytest.mark.parametrize("shape", [(333, 257), (2500, 41), (5, 700), (1, 1), (20, 20)])
def test_odd_sizes_become_squares_without_aliasing(tmp_path, shape):
    stripes = np.zeros(shape, np.uint8)
    stripes[::2] = 255
    read = read_gray(written(tmp_path, encoded(stripes)), 32)
    assert read.shape == (32, 32)
    if shape[0] > 320:  # fine stripes average out instead of turning into coarse ones
        assert np.abs(read.astype(int) - 128).max() < 30


def test_stretching_one_axis_still_averages_the_other():
    tall = np.zeros((1000, 8), np.uint8)
    tall[::2] = 200
    assert np.abs(resize(tall, 20).astype(int) - 100).max() <= 1


def test_exif_orientation_is_honoured(tmp_path):
    picture = np.zeros((20, 40), np.uint8)
    picture[:, :20] = 255  # left half white
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned a quarter clockwise: the left half comes to the top
    read = read_gray(written(tmp_path, encoded(picture, "JPEG", exif=exif, quality=95)), 20)
    assert read[:8].mean() > 200
    assert read[12:].mean() < 50


@pytest.mark.parametrize("share", [0.01, 0.4, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_files_are_refused(tmp_path, gray, kind, share, progressive):
    options = {"progressive": True} if kind == "JPEG" and progressive else {}
    content = encoded(np.kron(gray, np.ones((4, 4), np.uint8)), kind, **options)
    path = written(tmp_path, content[: int(len(content) * share)])
    with pytest.raises(BadImage, match=str(path)):
        read_gray(path, 32)


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_refused(tmp_path, gray):
    exif, thumbnail = Image.Exif(), encoded(gray[:16, :16], "JPEG")
    exif[0x927C] = thumbnail  # any tag will do: the bytes hold a complete JPEG with an end mark
    content = encoded(gray, "JPEG", exif=exif)
    assert thumbnail in content
    assert read_gray(written(tmp_path, content), 32).shape == (32, 32)
    with pytest.raises(BadImage, match="truncated"):
        read_gray(written(tmp_path, content[:-40]), 32)


def test_bytes_after_the_end_are_harmless(tmp_path, gray):
    for kind in ("PNG", "JPEG"):
        path = written(tmp_path, encoded(gray, kind) + b"\0" * 100)
        assert read_gray(path, 32).shape == (32, 32)


def test_one_flipped_bit_in_a_png_is_noticed(tmp_path, gray):
    content = bytearray(encoded(gray))
    content[len(content) // 2] ^= 1
    with pytest.raises(BadImage, match="damaged"):
        read_gray(written(tmp_path, bytes(content)), 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not an image", "decoded"), (b"\x89PNG\r\n\x1a\n", "truncated")],
)
def test_a_file_that_is_not_an_image_is_named_with_the_reason(tmp_path, content, reason):
    with pytest.raises(BadImage, match=reason) as raised:
        read_gray(written(tmp_path, content, "film.png"), 32)
    assert "film.png" in str(raised.value)
    assert "film.png" not in raised.value.reason


def test_missing_files_and_float_pixels_are_refused(tmp_path):
    with pytest.raises(BadImage, match="No such file"):
        read_gray(tmp_path / "nowhere.png", 32)
    _, content = cv2.imencode(".tif", np.zeros((8, 8), np.float32))
    with pytest.raises(BadImage, match="float32"):
        read_gray(written(tmp_path, content.tobytes()), 32)


def test_the_depth_ladder_covers_every_16_bit_value():
    assert images._DEPTHS[-1] == 16
    for value in (0, 255, 256, 1023, 1024, 65535):
        assert images._to_8_bit(np.full((4, 4), value, np.uint16), 4).max() <= 255


def test_reasons_why_an_image_is_not_a_radiograph(tmp_path):
    random_numbers = np.random.default_rng(0)
    images = {
        "a.png": (
            random_numbers.integers(0, 256, (31, 32), np.uint8),
            "has 32 x 31 pixels; at least 32",
        ),
        "b.png": (
            random_numbers.integers(0, 256, (32, 65), np.uint8),
            "not the shape of a chest radiograph",
        ),
        "c.png": (np.full((64, 64), 7, np.uint8), "is a single shade of gray"),
        "d.png": (random_numbers.integers(0, 256, (32, 64), np.uint8), ""),
    }
    for name, (image, reason) in images.items():
        cv2.imwrite(str(tmp_path / name), image)
        message = unlike_radiograph(tmp_path / name)
        assert message.startswith(reason) if reason.startswith("has") else reason in message
        assert bool(message) == bool(reason)
        if reason:
            with pytest.raises(BadImage):
                read_gray(tmp_path / name, 16, radiograph=True)
        assert read_gray(tmp_path / name, 16).shape == (16, 16)


@pytest.mark.parametrize(("share", "in_colour"), [(0.04, False), (0.06, True)])
@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_coloured_annotation_may_cover_a_small_share(tmp_path, share, in_colour, suffix):
    gray = np.random.default_rng(0).integers(0, 200, (100, 100, 1), np.uint8)
    image = np.repeat(gray, 3, axis=2)
    image[: round(100 * share), :, 2] = image[: round(100 * share), :, 0] + 40  # above 12 % of 255
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), image)
    assert ("is in colour" in unlike_radiograph(tmp_path / f"a.{suffix}")) == in_colour
    image[: round(100 * share), :, 2] -= 15  # below the colour threshold
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), image)
    assert unlike_radiograph(tmp_path / f"a.{suffix}") == ""


def test_only_images_that_may_be_coloured_are_decoded_twice():
    """The header of a gray PNG or JPEG is sufficient; padding before a marker is allowed."""
    gray = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    for suffix, picture, channels in (("png", gray, 1), ("jpg", gray, 1), ("jpg", None, 3)):
        picture = np.repeat(gray[..., None], 3, axis=2) if picture is None else picture
        content = cv2.imencode(f".{suffix}", picture)[1].tobytes()
        assert images._may_be_coloured(content) == (channels == 3)
        if suffix == "jpg":
            assert images._jpeg_channels(content) == channels
            assert images._jpeg_channels(content[:2] + b"\xff\xff" + content[2:]) == channels
            assert images._jpeg_channels(content[:20]) == 0


def test_a_jpeg_without_any_scan_is_truncated(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(40))
    with pytest.raises(BadImage, match="is truncated or damaged"):
        read_gray(tmp_path / "a.jpg", 16)


def test_long_segments_before_a_jpegs_frame_are_passed_over():
    gray = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    content = cv2.imencode(".jpg", gray)[1].tobytes()
    comment = b"\xff\xfe" + (0x0302).to_bytes(2, "big") + b"\xff\xc0" * 0x180  # like a frame
    assert images._jpeg_channels(content[:2] + comment + content[2:]) == 1


def test_transparency_is_not_colour(tmp_path):
    gray = np.random.default_rng(0).integers(0, 200, (40, 40, 1), np.uint8)
    image = np.concatenate([gray, gray, gray, np.full_like(gray, 255)], axis=2)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert unlike_radiograph(tmp_path / "a.png") == ""
