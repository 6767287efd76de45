"""Reads the pages that an answer cites, from the form of each protocol."""

from collections.abc import Iterable
from typing import Any


def cited(citations: Iterable[Any]) -> list[dict[str, str]] | None:
    """Return the address and the title of each cited page, each page once; None without pages.

    Args:
        citations: Citations of Anthropic's texts, or annotations of OpenAI's texts. Citations of
            other things than pages are left out.

    Example:
        >>> cited([{"type": "url_citation", "url": "https://who.int", "title": "WHO"}])
        [{'url': 'https://who.int', 'title': 'WHO'}]
    """
    pages: dict[str, str] = {}
    for each in citations:
        if isinstance(each, dict) and isinstance(url := each.get("url"), str):
            title = each.get("title")
            pages.setdefault(url, title if isinstance(title, str) else "")
    return [{"url": url, "title": title} for url, title in pages.items()] or None
