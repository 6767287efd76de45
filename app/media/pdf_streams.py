"""The streams of PDF files, decoded within limits, and the values that refer to them."""

import base64
import binascii
import re
import zlib
from dataclasses import dataclass
from typing import Any

from app.media.types import MediaRefused

#: Steps of the parser. A usual file needs some 3,000 steps for a page. The limit is reached after
#: some seconds.
MAX_STEPS = 1_000_000
#: Bytes of all decoded streams, without images and fonts.
MAX_EXPANDED_BYTES = 64_000_000
# Whole groups of ASCII85, not too many at a time.
_WHOLE_GROUPS = re.compile(rb"(?:z|[!-u]{5}){1,10000}")


class Name(str):
    """A name, such as ``/Type``, without the slash."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to an object, by the object's number."""

    number: int


@dataclass(frozen=True, eq=False, slots=True)
class Stream:
    """A stream: the dictionary and the stored bytes."""

    facts: dict[str, Any]
    raw: bytes


class Allowance:
    """The work that may be spent on one file, so that no file keeps a worker busy for long.

    Args:
        max_steps: Largest number of steps of the parser.
        max_bytes: Largest number of bytes of all decoded streams.
    """

    def __init__(self, *, max_steps: int = MAX_STEPS, max_bytes: int = MAX_EXPANDED_BYTES) -> None:
        self._steps_left = max_steps
        self._bytes_left = self._max_bytes = max_bytes

    def spend(self, steps: int) -> None:
        """Count steps of the parser.

        Raises:
            MediaRefused: If no steps are left.
        """
        self._steps_left -= steps
        if self._steps_left < 0:
            raise MediaRefused(
                "is too intricate to be measured: save it anew as a PDF, or send its pages as "
                "images"
            )

    def expanded(self, stream: Stream) -> bytes:
        """Decode a stream.

        Raises:
            MediaRefused: If the stream has a filter that is not known here, or if the streams of
                the file have too many bytes.
        """
        content = stream.raw
        filters = stream.facts.get("Filter", [])
        for name in filters if isinstance(filters, list) else [filters]:
            content = self._decoded(content, name, stream.facts)
        return content

    def _decoded(self, content: bytes, name: Any, facts: dict[str, Any]) -> bytes:
        try:
            if name in ("FlateDecode", "Fl"):
                if _predicts(facts.get("DecodeParms")):
                    raise MediaRefused(unreadable("a stream of text with a predictor"))
                return self._inflated(content)
            if name in ("ASCII85Decode", "A85"):
                return self._from_ascii85(content)
            if name in ("ASCIIHexDecode", "AHx"):
                digits = re.sub(rb"[\x00\s]", b"", content.partition(b">")[0])
                self._charge(len(digits) // 2)
                return binascii.unhexlify(digits + b"0" * (len(digits) % 2))
        except (ValueError, zlib.error) as error:
            if isinstance(error, MediaRefused):
                raise
            raise MediaRefused(unreadable(f"a broken stream ({name})")) from error
        raise MediaRefused(unreadable(f"a stream of text with the filter {str(name)[:50]!r}"))

    def _inflated(self, content: bytes) -> bytes:
        expanded = zlib.decompressobj().decompress(content, self._bytes_left + 1)
        self._charge(len(expanded))
        return expanded

    def _from_ascii85(self, content: bytes) -> bytes:
        text = re.sub(rb"[\x00\s]", b"", content)
        # The opening mark goes first, because "<~>" would begin with a closing mark.
        text = text.removeprefix(b"<~").partition(b"~>")[0]
        # A "z" stands for four bytes. Every other group has five characters for four bytes.
        self._charge(4 * text.count(b"z") + (4 * len(text)) // 5)
        pieces, end = [], 0
        # The decoder needs a hundred times its input, so it gets small pieces.
        for piece in _WHOLE_GROUPS.finditer(text):
            if piece.start() != end:
                break  # the decoder finds the broken group in the rest
            pieces.append(base64.a85decode(piece.group()))
            end = piece.end()
        return b"".join([*pieces, base64.a85decode(text[end:])])

    def _charge(self, expanded: int) -> None:
        """Count bytes of decoded streams, before or after they are decoded."""
        self._bytes_left -= expanded
        if self._bytes_left < 0:
            raise MediaRefused(
                f"expands to more than {self._max_bytes:,} bytes: send fewer pages, or send the "
                "pages as images"
            )


def _predicts(parameters: Any) -> bool:
    """Return whether the parameters of a filter change the inflated bytes."""
    each = parameters if isinstance(parameters, list) else [parameters]
    return any(
        isinstance(one, Ref) or (isinstance(one, dict) and one.get("Predictor", 1) != 1)
        for one in each
    )


def unreadable(problem: str) -> str:
    """Return the message about a file whose text cannot be measured."""
    return (
        f"has {problem}, so its text cannot be measured: save it anew as a PDF, or send its pages "
        "as images"
    )
