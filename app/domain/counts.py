"""Numbers of things in sentences: ``1 call``, ``2 calls``."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Write a number of things in a sentence: ``1 call``, ``1,200 calls``, ``2 retries``.

    Args:
        number: The number.
        noun: The word for one thing.
        plural: The word for several things, if it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
