"""Decode DICOM to gray pixels as a radiologist sees them: rescaled, windowed, bones white.

pydicom is needed for DICOM files only: pip install pydicom.
"""

import io
import warnings
from collections.abc import Callable

import numpy as np

from data import BadImage

MARK = b"DICM"  # at byte 128


def is_dicom(data: bytes) -> bool:
    return data[128:132] == MARK


def pixels(path, data: bytes) -> np.ndarray:
    """Return (H, W) uint8, from black to white over the first window or the image's own range."""
    try:
        import pydicom
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
    except ImportError as error:
        raise BadImage(path, "is DICOM, which needs pydicom: pip install pydicom") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # many files hold values that break the standard
        try:
            header = pydicom.dcmread(io.BytesIO(data))
            kind = header.get("PhotometricInterpretation", "unknown")
            if kind not in ("MONOCHROME1", "MONOCHROME2"):
                raise BadImage(path, f"is DICOM with {kind} pixels, not a gray radiograph")
            stored = header.pixel_array
            if stored.ndim != 2:
                raise BadImage(path, f"is DICOM with {len(stored)} frames, not one radiograph")
            rescaled = apply_modality_lut(stored, header)
            shown = np.asarray(apply_voi_lut(rescaled, header), float)
            low, high = _ends(header, shown, lambda values: apply_voi_lut(values, header))
        except BadImage:
            raise
        except Exception as error:  # the parser may fail in any way on a damaged file
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BadImage(path, f"is DICOM that cannot be decoded: {reason}") from error
    gray = np.clip((shown - low) / max(high - low, 1e-9), 0, 1) * 255
    if kind == "MONOCHROME1":  # small values are white
        gray = 255 - gray
    return gray.round().astype(np.uint8)


def _ends(header, shown: np.ndarray, window: Callable) -> tuple[float, float]:
    """Return the values of black and of white."""
    if "VOILUTSequence" in header:
        return 0.0, 2.0 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
    if "WindowCenter" in header:  # values far outside the window are mapped to its ends
        return tuple(window(np.array([-1e9, 1e9])))
    return shown.min(), shown.max()
