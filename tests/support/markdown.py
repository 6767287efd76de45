"""The project's Markdown files, and the parts that tests read.

The words after a code block's language are instructions for tests: ``run`` executes the block,
``file=`` writes it to a file, and ``config`` and ``workflow`` load it. Readers do not see these
words.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
CODE_SPAN = re.compile(r"`([^`\n]+)`")
CONSOLE = ("console", "sh", "shell", "bash")
END_OF_BENCHMARK = "end of the benchmark"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced code block.

    Attributes:
        page: The file with the block.
        line: Number of the line with the block's first fence; the first line is 1.
        language: First word after the fence.
        words: The other words after the fence.
        text: The content of the block.
    """

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").rglob("*.md")]
    return sorted(found)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        language, *words = match[1].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page=page, line=line, language=language, words=tuple(words), text=match[2])


def marked(language: str, word: str) -> list[Block]:
    """Return every block of a language that has this word after the language."""
    return [
        block
        for page in pages()
        for block in blocks(page)
        if block.language == language and word in block.words
    ]


def files_of(page: Path) -> dict[str, str]:
    """Return the files that a page asks the reader to write."""
    return {
        word.removeprefix("file="): block.text
        for block in blocks(page)
        for word in block.words
        if word.startswith("file=")
    }


def without_blocks(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    return LINK.findall(without_blocks(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in HEADING.findall(without_blocks(page)):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(plain)
    return found


def commands(page: Path) -> list[str]:
    """Return a page's commands: console lines without prompt and comment, and code spans."""
    found = [
        re.sub(r"\s+#.*", "", line.removeprefix("$ ")).strip()
        for block in blocks(page)
        if block.language in CONSOLE
        for line in block.text.splitlines()
        if line.startswith("$ ")
    ]
    return found + CODE_SPAN.findall(without_blocks(page))


def section(file: Path, *, mark: str, end: str) -> tuple[str, str, str]:
    """Return the text before, between and after two comments, which stay in the outer parts.

    Raises:
        ValueError: If the file has no such comments.
    """
    before, begin, rest = file.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
    between, closing, after = rest.partition(f"<!-- {end} -->")
    if not (begin and closing):
        raise ValueError(f"{str(file)!r} has no comment {mark!r} and then {end!r}")
    return before + begin, between, closing + after


def write_into(file: Path, text: str, *, mark: str, end: str = END_OF_BENCHMARK) -> None:
    """Put a text into a Markdown file, between the two comments that mark its place.

    Raises:
        ValueError: If the file has no such comments.
    """
    before, _, after = section(file, mark=mark, end=end)
    file.write_text(f"{before}{text}\n{after}", encoding="utf-8")
