"""The readable text of a page of the web: its one function is all that knows the library."""

from app.errors import ToolError

#: Of a page with more only the beginning is read: made to be slow, this much takes some seconds.
MAX_PAGE_CHARS = 1_000_000


def readable_text(page: str, url: str) -> str:
    """The main text of a page, in Markdown; all of its text if no main part can be made out.

    Args:
        page: HTML from anybody.
        url: Where it is from; links are made whole with it.

    Returns:
        The text; empty if there is none.
    """
    try:
        # Late: it takes a fifth of a second, and most workers never read a page.
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
