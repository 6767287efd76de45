"""The size and the tokens of an image or a PDF."""

from dataclasses import dataclass

from app.media.image_tokens import image_bound, image_tokens, page_bound, page_tokens
from app.media.images import dimensions_of
from app.media.pdf import pages_and_text
from app.media.types import PDF

# The bound of a text counts every code of a PDF as two bytes. A token has about four bytes.
_BOUND_BYTES_PER_TOKEN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSize:
    """Size of an image in pixels."""

    width: int
    height: int

    def bound_tokens(self, model: str, detail: str) -> int:
        """Return the most tokens that a model can count for the image."""
        return image_bound(model, self.width, self.height, detail)

    def expected_tokens(self, model: str, detail: str) -> int:
        """Return the tokens that a model will probably count for the image."""
        return image_tokens(model, self.width, self.height, detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class PdfSize:
    """Size of a PDF: the number of pages, and an upper bound of the text in bytes of UTF-8."""

    pages: int
    text_bytes: int

    def bound_tokens(self, model: str, detail: str) -> int:  # noqa: ARG002 see ImageSize
        """Return the most tokens that a model can count for the pictures and the text."""
        return self.pages * page_bound(model) + self.text_bytes

    def expected_tokens(self, model: str, detail: str) -> int:  # noqa: ARG002 see ImageSize
        """Return the tokens that a model will probably count for the pictures and the text."""
        return self.pages * page_tokens(model) + self.text_bytes // _BOUND_BYTES_PER_TOKEN


Size = ImageSize | PdfSize


def size_of(content: bytes, media_type: str) -> Size:
    """Return the size of an image or a PDF.

    Args:
        content: The whole file.
        media_type: Type of the file, from ``media_type_of``, but not ``text/plain``.

    Raises:
        MediaRefused: If the file cannot be measured; the message says why, and what to do.

    Example:
        >>> size_of(open("logo.png", "rb").read(), "image/png")
        ImageSize(width=640, height=480)
    """
    if media_type == PDF:
        pages, text_bytes = pages_and_text(content)
        return PdfSize(pages=pages, text_bytes=text_bytes)
    width, height = dimensions_of(content, media_type)
    return ImageSize(width=width, height=height)
