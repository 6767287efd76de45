"""Reads the header ``Content-Type`` of servers in linear time.

The readers of the standard library and of the HTTP library need up to a second for a header of
8 kB, and decode parts of the header with any codec that the header names.
"""

import re
from typing import NamedTuple

#: What the web means by a type that cannot be read.
UNKNOWN = "application/octet-stream"
_MAX_CHARS = 1000
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([a-z0-9_.:+-]{1,40})""", re.IGNORECASE)


class ContentType(NamedTuple):
    """The type of a body.

    Attributes:
        name: The type in lower case, such as ``text/html``; empty if the server has given none.
        charset: The name of the character set as the server has given it, or None.
    """

    name: str
    charset: str | None


def content_type_of(header: str | None) -> ContentType:
    """Read the header ``Content-Type``; what stands behind 1,000 characters is not read.

    Example:
        >>> content_type_of('Text/HTML; charset="iso-8859-1"')
        ContentType(name='text/html', charset='iso-8859-1')
    """
    if header is None:
        return ContentType("", None)
    read = header[:_MAX_CHARS]
    name = read.partition(";")[0].strip().lower()
    charset = _CHARSET.search(read)
    return ContentType(
        name if _TYPE.fullmatch(name) else UNKNOWN, None if charset is None else charset[1]
    )
