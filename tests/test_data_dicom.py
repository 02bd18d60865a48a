"""DICOM as a radiologist sees it: windows, inverted scales, 16 bits, and refused files."""

import sys

import numpy as np
import pytest

from data import BadImage
from data.images import read_gray, unlike_radiograph

pydicom = pytest.importorskip("pydicom")


def write(path, pixels: np.ndarray, kind="MONOCHROME2", bits=12, **tags):
    """Write a minimal digital radiograph."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = (
        DigitalXRayImageStorageForPresentation
    )
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.Rows, header.Columns = pixels.shape[:2]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, kind
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, bits, bits - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.PixelData = pixels.astype("<i2" if header.PixelRepresentation else "<u2").tobytes()
    for name, value in tags.items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def ramp() -> np.ndarray:
    """Return values from 0 to 4095 from left to right."""
    return np.tile(np.linspace(0, 4095, 64).round().astype(np.uint16), (48, 1))


def test_without_a_window_the_image_reaches_from_black_to_white(tmp_path, ramp):
    gray = read_gray(write(tmp_path / "a", ramp // 2 + 100), 64)
    assert (gray[:, 0].max(), gray[:, -1].min()) == (0, 255)
    assert np.abs(np.diff(gray[0].astype(int)) - 255 / 63).max() < 1.01


def test_a_window_clips_and_stretches(tmp_path, ramp):
    path = write(tmp_path / "a", ramp, WindowCenter=2048, WindowWidth=1024)
    gray = read_gray(path, 64)[0].astype(float)
    expected = np.clip((ramp[0] - (2048 - 0.5) + 1023 / 2) / 1023, 0, 1) * 255
    np.testing.assert_allclose(gray, expected, atol=0.6)


def test_a_window_wider_than_the_image_is_not_stretched(tmp_path, ramp):
    """A dark image stays dark; its brightest pixel does not become white."""
    path = write(tmp_path / "a", ramp // 4, WindowCenter=2048, WindowWidth=4096)
    assert read_gray(path, 64).max() == pytest.approx(1023 / 4095 * 255, abs=1.5)


def test_a_look_up_table_has_its_own_white(tmp_path, ramp):
    """The table's depth decides what is white, even where the image does not reach it."""
    from pydicom.dataset import Dataset

    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 10])
    table.add_new("LUTData", "US", (np.arange(4096) // 8).tolist())  # to 511 of 1023
    gray = read_gray(write(tmp_path / "a", ramp, VOILUTSequence=[table]), 64)[0].astype(float)
    np.testing.assert_allclose(gray, (ramp[0] // 8) / 1023 * 255, atol=0.6)


def test_monochrome1_is_inverted(tmp_path, ramp):
    plain, inverted = (
        read_gray(write(tmp_path / kind, ramp, kind, WindowCenter=2000, WindowWidth=3000), 64)
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_allclose(inverted.astype(int), 255 - plain.astype(int), atol=1)


def test_signed_and_rescaled_values(tmp_path, ramp):
    signed = ramp.astype(np.int16) - 2048
    tags = {"RescaleSlope": 2, "RescaleIntercept": 10, "WindowCenter": 10, "WindowWidth": 4000}
    gray = read_gray(write(tmp_path / "a", signed, **tags), 64)[0].astype(float)
    expected = np.clip((signed[0] * 2.0 + 10 - 9.5) / 3999 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(gray, expected, atol=0.6)


def test_all_16_bits_count(tmp_path):
    pixels = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (64, 1))
    gray = read_gray(write(tmp_path / "a", pixels, bits=16), 64)
    assert len(np.unique(gray)) == 64


def test_colour_damage_and_a_missing_library_are_a_sentence(tmp_path, ramp, monkeypatch):
    palette = write(tmp_path / "palette", ramp, "PALETTE COLOR")
    with pytest.raises(BadImage, match="PALETTE COLOR pixels, not a gray radiograph"):
        read_gray(palette, 64)
    whole = write(tmp_path / "whole", ramp)
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(BadImage, match="is DICOM that cannot be decoded"):
        read_gray(tmp_path / "cut", 64)
    assert unlike_radiograph(whole) == ""
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(BadImage, match="pip install pydicom"):
        read_gray(whole, 64)
