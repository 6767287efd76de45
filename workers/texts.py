"""Texts of models and tools, without the characters that Postgres cannot store."""


def storable(text: str) -> str:
    """Replace NUL and lone surrogates, which JSON may carry but Postgres cannot store."""
    if text.isascii():
        return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    cleaned = text.encode("utf-8", "replace").decode()
    return cleaned.replace("\x00", "\N{REPLACEMENT CHARACTER}")
