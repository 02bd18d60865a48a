"""Read one image, a file or a part of one, as one 8-bit gray square.

The cache and single-image prediction both call `read_gray`, so they agree to the last bit.
"""

import stat
import zlib
from pathlib import Path

import cv2
import numpy as np

from data import BadImage, containers, dicom

# A 16-bit file usually holds fewer bits. Its depth is the smallest of these that fits its brightest
# pixel, so 12-bit film scans in 16-bit files keep their contrast.
_DEPTHS = (8, 10, 12, 14, 16)

# A chest radiograph is not smaller, not longer, and not coloured beyond its annotations.
SMALLEST = 32  # pixels
LONGEST = 2.0  # times its short side
COLOURED, COLOURED_SHARE = 0.12, 0.05  # difference of two channels, share of the pixels


def read_gray(path, size: int, radiograph: bool = False) -> np.ndarray:
    """Return (size, size) uint8: colour to luma, EXIF applied, 16 bits scaled, area-resized.

    As in the papers, the image is squashed to the square; its aspect ratio is not kept. With
    `radiograph`, raise a BadImage if `unlike_radiograph` gives a reason.
    """
    return read_sized(path, size, radiograph)[0]


def read_sized(path, size: int, radiograph: bool = False) -> tuple[np.ndarray, int]:
    """Return the image of `read_gray`, and the pixels of its source's shorter side."""
    if inside := containers.split(path):
        content = containers.read(*inside)
        if isinstance(content, np.ndarray):  # a row of an array of gray images
            return _to_8_bit(content, size), min(content.shape)
    else:
        content = _content(path)
    return decode(path, content, size, radiograph)


def decode(path, content: bytes, size: int, radiograph: bool = False) -> tuple[np.ndarray, int]:
    """Return what `read_sized` returns for a file with this content."""
    gray = _decoded(path, content, cv2.IMREAD_ANYDEPTH)
    if radiograph and (reason := _unlike(path, content, gray)):
        raise BadImage(path, reason)
    return _to_8_bit(gray, size), min(gray.shape)


def unlike_radiograph(path) -> str:
    """Return why a readable file cannot be a gray chest radiograph; "" if it may be one."""
    content = _content(path)
    return _unlike(path, content, _decoded(path, content, cv2.IMREAD_ANYDEPTH))


def _unlike(path, content: bytes, gray: np.ndarray) -> str:
    """Return why the decoded file cannot be a gray chest radiograph; "" if it may be one."""
    height, width = gray.shape
    if min(height, width) < SMALLEST:
        return f"has {width} x {height} pixels; at least {SMALLEST} are needed on each side"
    if max(height, width) > LONGEST * min(height, width):
        return f"has {width} x {height} pixels, which is not the shape of a chest radiograph"
    if _may_be_coloured(content):
        image = _decoded(path, content, cv2.IMREAD_UNCHANGED)
        # gray images are often stored as three equal channels
        if image.ndim == 3 and image.shape[2] >= 3:
            channels = image[..., :3].astype(np.float32) / np.iinfo(image.dtype).max
            if (np.ptp(channels, axis=2) > COLOURED).mean() > COLOURED_SHARE:
                return "is in colour; radiographs are gray"
    if gray.min() == gray.max():
        return "is a single shade of gray"
    return ""


def _may_be_coloured(content: bytes) -> bool:
    """Return False if the header states one gray channel, so colours need no second decoding."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content[25] not in (0, 4)  # colour type: gray, gray with transparency
    if content.startswith(b"\xff\xd8"):
        return _jpeg_channels(content) != 1
    return not dicom.is_dicom(content)


def _jpeg_channels(content: bytes) -> int:
    """Return the number of channels in a JPEG's frame header; 0 if there is none."""
    at = 2
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[at + 9]
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return 0


def _content(path) -> bytes:
    """Return a file's bytes; raise a BadImage if it is empty, unreadable or not a regular file."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a named pipe would block
            raise BadImage(path, "is not a regular file, but a folder, a pipe or a device")
        content = path.read_bytes()
    except OSError as error:
        raise BadImage(path, f"cannot be read: {error.strerror}") from error
    if not content:
        raise BadImage(path, "is empty")
    return content


def _decoded(path, content: bytes, flags: int) -> np.ndarray:
    """Return the 8- or 16-bit pixels that OpenCV's flags ask for; DICOM is always gray."""
    if dicom.is_dicom(content):
        return dicom.pixels(path, content)
    if not _is_whole(content):
        raise BadImage(path, "is truncated or damaged")
    try:
        # OpenCV looks palettes up and drops transparency.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise BadImage(path, f"cannot be decoded: {error.err}") from error
    if image is None:
        raise BadImage(path, "cannot be decoded as an image")
    if image.dtype not in (np.uint8, np.uint16):
        raise BadImage(path, f"holds {image.dtype} pixels; only 8 and 16 bits are supported")
    return image


def _to_8_bit(image: np.ndarray, size: int) -> np.ndarray:
    small = resize(image, size)
    if image.dtype == np.uint8:
        return small
    bits = int(image.max()).bit_length()
    depth = next(depth for depth in _DEPTHS if depth >= bits)
    return cv2.convertScaleAbs(small, alpha=255 / (2**depth - 1))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Shrink by area averaging; then stretch an axis that is too short linearly."""
    height, width = image.shape
    # OpenCV averages areas only if both axes shrink, hence two steps for mixed cases.
    inner = (min(width, size), min(height, size))
    if inner != (width, height):
        image = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    if inner != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image


def _is_whole(data: bytes) -> bool:
    """Return False for a truncated PNG or JPEG, whose rest decoders silently fill with gray."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_is_whole(data)
    if data.startswith(b"\xff\xd8"):
        # An end mark of an embedded thumbnail comes before the start of the main scan.
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    return True


def _png_is_whole(data: bytes) -> bool:
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        check = at + 8 + length
        if zlib.crc32(view[at + 4 : check]) != int.from_bytes(view[check : check + 4], "big"):
            return False
        if view[at + 4 : at + 8] == b"IEND":
            return True
        at = check + 4
    return False
