"""The readable text of a web page; only this module uses the library that extracts text."""

from app.errors import ToolError

#: Only the beginning of a longer page is read, because a hostile page of this size already takes
#: some seconds.
MAX_PAGE_CHARS = 1_000_000


def readable_text(page: str, url: str) -> str:
    """Return the main text of a page in Markdown, or the whole text if there is no main part.

    Args:
        page: HTML from any source.
        url: URL of the page; relative links are completed with this URL.

    Returns:
        The text, or an empty string if the page has no text.
    """
    try:
        # Imported late, because the import takes 0.2 s and most workers never read a page.
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
