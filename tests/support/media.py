"""Images and PDFs for tests, written byte by byte, so that each byte of a header can be chosen."""

import struct
import zlib
from collections.abc import Mapping, Sequence


def png(width: int, height: int, *, filled: bool = False) -> bytes:
    """Return a PNG image; its pixels are left out unless it is ``filled``."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\x00" + b"\xff" * width) * height if filled else b""
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg(width: int, height: int, *, before: bytes = b"") -> bytes:
    """Return the header of a JPEG image, with further segments before its frame."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(9) + before + frame + b"\xff\xd9"


def gif(width: int, height: int, *, frame: tuple[int, int] | None = None) -> bytes:
    """Return the header of a GIF image, and the header of a frame."""
    inner = struct.pack("<HHHHB", 0, 0, *(frame or (width, height)), 0)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + inner + b";"


def webp(width: int, height: int, *, kind: bytes = b"VP8 ") -> bytes:
    """Return the header of a WebP image of one of its three kinds."""
    if kind == b"VP8X":
        data = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        data = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little")
    else:
        data = b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pdf(*texts: str, compressed: bool = True) -> bytes:
    """Return a PDF with a page for each text, as a usual program writes it."""
    kids = " ".join(f"{3 + 2 * page} 0 R" for page in range(len(texts)))
    objects: dict[int, bytes | tuple[str, bytes]] = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: f"<< /Type /Pages /Kids [{kids}] /Count {len(texts)} >>".encode(),
    }
    for page, text in enumerate(texts):
        shown = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        content = f"BT /F1 12 Tf 72 720 Td ({shown}) Tj ET".encode("latin-1")
        objects[3 + 2 * page] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {4 + 2 * page} 0 R >>"
        ).encode()
        objects[4 + 2 * page] = stream(content, compressed=compressed)
    return document(objects)


def stream(content: bytes, facts: str = "", *, compressed: bool = True) -> tuple[str, bytes]:
    """Return a stream for ``document``: its dictionary without its length, and its bytes."""
    if not compressed:
        return facts, content
    return f"{facts} /Filter /FlateDecode", zlib.compress(content)


def document(objects: Mapping[int, bytes | tuple[str, bytes]], trailer: str = "") -> bytes:
    """Return a PDF with these objects, and with the table of contents that readers expect."""
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    offsets: dict[int, int] = {}
    for number, value in objects.items():
        offsets[number] = len(out)
        out += f"{number} 0 obj\n".encode() + _written(value) + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in _in_order(offsets))
    size = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\n"
    return bytes(out + f"{size}startxref\n{table}\n%%EOF\n".encode())


def _written(value: bytes | tuple[str, bytes]) -> bytes:
    if isinstance(value, bytes):
        return value
    facts, content = value
    head = f"<< {facts} /Length {len(content)} >>\nstream\n".encode()
    return head + content + b"\nendstream"


def _in_order(offsets: Mapping[int, int]) -> Sequence[int]:
    return [offsets[number] for number in sorted(offsets)]
