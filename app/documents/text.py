"""Reads text files: only UTF-8, so that no file is ever read as other characters than it has."""

from pathlib import Path

from app.errors import WorkflowFileError

# UTF-32 comes first, because its mark in little endian begins like the mark of UTF-16.
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
#: Bytes at the beginning of a file that show whether each character has two or four bytes.
_SAMPLE_BYTES = 4096


def read_text(path: Path | str, *, max_bytes: int | None = None) -> str:
    r"""Read a text file in UTF-8.

    Args:
        path: Path of the file.
        max_bytes: Size of the largest file that is read; None means any size.

    Returns:
        The text without a byte order mark. Every line break is ``\n``.

    Raises:
        WorkflowFileError: If the file cannot be read, is too large, or is not text in UTF-8. The
            message says what to do.
    """
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            content = stream.read() if max_bytes is None else stream.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # a path with a NUL character is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise WorkflowFileError(f"cannot be read: {reason}", file=file) from error
    if max_bytes is not None and len(content) > max_bytes:
        raise WorkflowFileError(f"is over {max_bytes:,} bytes: split it", file=file)
    if coding := _other_coding(content):
        raise WorkflowFileError(f"is {coding} text: save it as UTF-8", file=file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkflowFileError(
            # The byte is not shown, because it may be a part of a secret.
            "is not UTF-8 text: save it as UTF-8",
            file=file,
            line=_line_at(content, error.start),
        ) from error
    if (place := content.find(b"\0")) >= 0:
        raise WorkflowFileError(
            "contains a NUL character, so it is not a text file: save it as UTF-8 text without NUL",
            file=file,
            line=_line_at(content, place),
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _line_at(content: bytes, place: int) -> int:
    before = content[:place].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return before.count(b"\n") + 1


def _other_coding(content: bytes) -> str | None:
    """Recognize UTF-16 and UTF-32 by the mark at the beginning, or else by the zero bytes.

    Characters of ASCII have a zero byte of two in UTF-16, and three zero bytes of four in UTF-32.
    """
    for mark, coding in _MARKS:
        if content.startswith(mark):
            return coding
    sample = content[:_SAMPLE_BYTES]
    zeros = sample.count(0)
    if zeros * 10 >= len(sample) * 7 and len(sample) >= 4:  # noqa: PLR2004  one character
        return "UTF-32"
    # Half of the bytes on one side, and almost none on the other: text of which most is ASCII.
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(sample) >= 4 and max(even, odd) * 4 >= len(sample) and min(even, odd) * 20 <= zeros:  # noqa: PLR2004
        return "UTF-16"
    return None
