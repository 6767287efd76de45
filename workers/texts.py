"""Texts of models and tools, as Postgres can store them."""


def storable(text: str) -> str:
    """Replace what Postgres cannot store but JSON may carry: NUL and lone surrogates."""
    if text.isascii():
        return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    cleaned = text.encode("utf-8", "replace").decode()
    return cleaned.replace("\x00", "\N{REPLACEMENT CHARACTER}")
