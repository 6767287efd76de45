"""Decodes texts from outside, in the character sets of the web and in linear time.

Python also has codecs that are no character sets of the web. ``punycode`` needs quadratic time,
``idna`` raises errors, and ``unicode_escape`` evaluates escapes. A name from outside is therefore
never looked up as a codec; it only selects a character set of a list.
"""

import codecs
from encodings import normalize_encoding
from encodings.aliases import aliases

#: The character sets of the WHATWG's encoding standard, by the names of Python's codecs.
CHARSETS = frozenset(
    "utf_8 utf_16 utf_16_le utf_16_be ascii latin_1 iso8859_2 iso8859_3 iso8859_4 iso8859_5 "
    "iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 iso8859_13 iso8859_14 iso8859_15 "
    "iso8859_16 koi8_r koi8_u mac_roman mac_cyrillic cp866 cp874 cp1250 cp1251 cp1252 cp1253 "
    "cp1254 cp1255 cp1256 cp1257 cp1258 gb2312 gbk gb18030 big5 big5hkscs euc_jp iso2022_jp "
    "shift_jis cp932 euc_kr cp949 tis_620".split()
)
_DEFAULT = "utf_8"
_MAX_NAME_CHARS = 40
# Between two pieces, other threads can run, because an error handler keeps Python's lock.
_PIECE_BYTES = 65_536


def charset_of(name: str | None) -> str:
    """Return the character set that a name means, as the name of a codec.

    Args:
        name: The name that a server has given, such as ``ISO-8859-1``, or None.

    Returns:
        A name of ``CHARSETS``; UTF-8 if the server has given no name or an unknown name.
    """
    if name is None or len(name) > _MAX_NAME_CHARS or not name.isascii():
        return _DEFAULT
    codec = normalize_encoding(name.lower().strip())
    codec = aliases.get(codec, codec)
    return codec if codec in CHARSETS else _DEFAULT


def decoded(content: bytes, charset: str | None) -> str:
    """Decode a text; bytes outside its character set are replaced.

    Args:
        content: The bytes.
        charset: The name of the character set, from any source.
    """
    codec = charset_of(charset)
    if codec == "utf_16" and not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codec = "utf_16_le"  # what the web means without a mark; the decoder would want the mark
    decoder = codecs.getincrementaldecoder(codec)("replace")
    pieces = [
        decoder.decode(content[start : start + _PIECE_BYTES])
        for start in range(0, len(content), _PIECE_BYTES)
    ]
    return "".join([*pieces, decoder.decode(b"", final=True)])
