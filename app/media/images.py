"""The width and height of an image, from the image's header; pixels are never decoded."""

from collections.abc import Callable, Mapping

from app.media.types import GIF, JPEG, PNG, WEBP, MediaRefused

# JPEG's markers without a length, and the markers that begin a frame and have the dimensions.
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE, _FILL = 0xDA, 0xD9, 0xFF


def dimensions_of(content: bytes, media_type: str) -> tuple[int, int]:
    """Return the width and the height of an image, in pixels.

    Args:
        content: The whole file.
        media_type: Type of the image, from ``media_type_of``.

    Raises:
        MediaRefused: If the header has no dimensions.
    """
    try:
        width, height = _READERS[media_type](content)
    except IndexError as error:
        raise MediaRefused("is cut off: its header has no width and height") from error
    if not width or not height:
        raise MediaRefused(f"is {width} pixels wide and {height} high, so it shows nothing")
    return width, height


def _png(content: bytes) -> tuple[int, int]:
    if content[12:16] != b"IHDR":
        raise MediaRefused("is not a PNG image: its first chunk is not its header")
    return _big(content, 16, 4), _big(content, 20, 4)


def _gif(content: bytes) -> tuple[int, int]:
    """Return the larger of the screen and the first frame, because readers differ in the choice."""
    width, height = _little(content, 6, 2), _little(content, 8, 2)
    # The frame comes after the header, the colour table and the extensions.
    position = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    while content[position] == ord("!"):
        position += 2
        while block := content[position]:
            position += block + 1
        position += 1
    if content[position] == ord(","):
        width = max(width, _little(content, position + 5, 2))
        height = max(height, _little(content, position + 7, 2))
    return width, height


def _jpeg(content: bytes) -> tuple[int, int]:
    position = 2
    while True:
        position = content.find(b"\xff", position) + 1
        if not position:
            raise MediaRefused("is cut off: it has no frame")
        while content[position] == _FILL:
            position += 1
        marker = content[position]
        position += 1
        if marker in _FRAMES:
            return _big(content, position + 5, 2), _big(content, position + 3, 2)
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            raise MediaRefused("is not a JPEG image: it has no frame before its pixels")
        if marker and marker not in _ALONE:
            position += _big(content, position, 2)


def _webp(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return _little(content, 24, 3) + 1, _little(content, 27, 3) + 1
    if kind == b"VP8L":
        bits = _little(content, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _little(content, 26, 2) & 0x3FFF, _little(content, 28, 2) & 0x3FFF
    raise MediaRefused("is not a WebP image: it has no frame")


def _big(content: bytes, start: int, size: int) -> int:
    return int.from_bytes(_bytes(content, start, size), "big")


def _little(content: bytes, start: int, size: int) -> int:
    return int.from_bytes(_bytes(content, start, size), "little")


def _bytes(content: bytes, start: int, size: int) -> bytes:
    part = content[start : start + size]
    if len(part) < size:
        raise IndexError("the content ends before this number")
    return part


_READERS: Mapping[str, Callable[[bytes], tuple[int, int]]] = {
    PNG: _png,
    JPEG: _jpeg,
    GIF: _gif,
    WEBP: _webp,
}
