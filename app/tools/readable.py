"""The readable text of a web page; only this module knows the library that extracts it."""

from app.errors import ToolError

#: Only the beginning of a longer page is read: a hostile page of this size takes some seconds.
MAX_PAGE_CHARS = 1_000_000


def readable_text(page: str, url: str) -> str:
    """Return the main text of a page, in Markdown; all of its text if there is no main part.

    Args:
        page: HTML from any source.
        url: Its URL, from which relative links are completed.

    Returns:
        The text; empty if there is none.
    """
    try:
        # Imported late: it takes 0.2 s, and most workers never read a page.
        import trafilatura
    except ImportError as error:
        raise ToolError(f"the library that reads pages cannot be loaded: {error}") from error
    text = trafilatura.extract(
        page[:MAX_PAGE_CHARS],
        url=url,
        output_format="markdown",
        include_links=True,
        favor_recall=True,
    )
    return text or trafilatura.html2txt(page[:MAX_PAGE_CHARS])
