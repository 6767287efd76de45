"""Compressed texts that become very long."""

import zlib

#: The formats of ``zlib``.
ZLIB, GZIP = 15, 31


def bomb(piece: bytes, times: int, *, begin: bytes = b"", wbits: int = GZIP) -> bytes:
    """Compress a text, and a piece that follows many times.

    Args:
        piece: The piece.
        times: How often the piece follows.
        begin: The beginning of the text.
        wbits: The format.
    """
    compressing = zlib.compressobj(level=1, wbits=wbits)
    parts = [compressing.compress(begin)]
    parts += [compressing.compress(piece) for _ in range(times)]
    return b"".join([*parts, compressing.flush()])
