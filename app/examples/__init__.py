"""Three runnable examples, and the documents that they read.

To try an example, run ``agentchord up --simulator`` in one terminal and
``agentchord run app.examples.erp --follow`` in another terminal. The command
``python -m app.examples.parallel`` runs the example with eight workflows.
"""

from pathlib import Path

DOCUMENTS = Path(__file__).parent / "documents"


def document(name: str) -> str:
    """Return the text of a document that ships with the examples.

    Args:
        name: Name of the file, such as ``invoice.txt``.
    """
    return (DOCUMENTS / name).read_text(encoding="utf-8")
