"""Texts from outside, models and tools, as they can be kept."""


def storable(text: str) -> str:
    """Text as Postgres can keep it: no NUL and no lone surrogates, which JSON may carry."""
    if text.isascii():
        return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    cleaned = text.encode("utf-8", "replace").decode()
    return cleaned.replace("\x00", "\N{REPLACEMENT CHARACTER}")
