"""Three runnable examples and the documents they work on.

``agentchord up --simulator`` in one terminal, ``agentchord run app.examples.erp --follow`` in
another; or ``python -m app.examples.parallel``.
"""

from pathlib import Path

DOCUMENTS = Path(__file__).parent / "documents"


def document(name: str) -> str:
    """Return the text of one of the documents that ship with the examples.

    Args:
        name: File name, such as ``invoice.txt``.
    """
    return (DOCUMENTS / name).read_text(encoding="utf-8")
