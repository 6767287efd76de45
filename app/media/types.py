"""The type of a file, by the file's content; names and headers may lie, so neither is read."""

PDF = "application/pdf"
PNG, JPEG, GIF, WEBP = "image/png", "image/jpeg", "image/gif", "image/webp"
TEXT = "text/plain"
IMAGES = (PNG, JPEG, GIF, WEBP)
#: The types that a prompt can have, in words for error messages.
ACCEPTED = "a PNG, JPEG, GIF or WebP image, a PDF, or a text in UTF-8"

# Readers of PDFs accept a header that begins within this many bytes.
_PDF_HEADER_BYTES = 1024
_BOMS = (b"\xff\xfe", b"\xfe\xff")
# Control characters that no text has; tab, line feed, form feed and carriage return are left out.
_NOT_TEXT = bytes(code for code in range(32) if code not in (9, 10, 12, 13)) + b"\x7f"


class MediaRefused(ValueError):
    """A file that cannot be a part of a prompt; the message says why, and what to do."""


def media_type_of(content: bytes) -> str:
    """Return the type of a file.

    Args:
        content: The whole file.

    Returns:
        One of ``IMAGES``, ``PDF`` or ``TEXT``.

    Raises:
        MediaRefused: If the file is empty, or of another type.

    Example:
        >>> media_type_of(b"total: 12.50 EUR")
        'text/plain'
    """
    if not content:
        raise MediaRefused("is empty")
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if content.startswith(b"\xff\xd8\xff"):
        return JPEG
    if content.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return WEBP
    if b"%PDF-" in content[:_PDF_HEADER_BYTES]:
        return PDF
    if is_text(content):
        return TEXT
    raise MediaRefused(f"is of a type that cannot be sent: give {ACCEPTED}")


def is_text(content: bytes) -> bool:
    """Return whether a file is a text in UTF-8."""
    if content.startswith(_BOMS) or len(content.translate(None, _NOT_TEXT)) != len(content):
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
