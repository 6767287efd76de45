"""Attachments from the workers' folder and from base64: what is read, and what is refused."""

import base64
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.attachments.reader import AttachmentReader, digest_of
from app.configuration.sections import AttachmentSettings
from app.domain.attachments import Place, Source
from app.errors import AttachmentRefused
from app.llm.parts import part_of
from tests.support.media import pdf, png

pytestmark = pytest.mark.anyio

PNG = png(20, 10)


async def at_once(function: Callable[[], Any]) -> Any:
    return function()


def reader(folder: Path | None = None, **rules: Any) -> AttachmentReader:
    return AttachmentReader(AttachmentSettings(folder=folder, **rules), in_thread=at_once)


def source(value: str, place: Place = "path", number: int = 0, **fields: Any) -> Source:
    return Source(entry=f"attachments[{number}]", place=place, value=value, **fields)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, beside a secret that is not in it."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "in"
    (folder / "2026").mkdir(parents=True)
    (folder / "2026" / "scan.png").write_bytes(PNG)
    (folder / "invoice.pdf").write_bytes(pdf("Total: 12 EUR"))
    (folder / "note.txt").write_text("paid")
    return folder


@pytest.fixture(scope="module")
def folder_with_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file and with links to the folder around it, which has a secret."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    folder = outside / "in"
    folder.mkdir()
    (folder / "note.txt").write_text("paid")
    (folder / "up").symlink_to(outside)
    (folder / "secret.txt").symlink_to(outside / "secret.txt")
    return folder


async def test_files_of_the_folder_become_parts_in_order(folder: Path) -> None:
    sources = [source("2026/scan.png", detail="low"), source("invoice.pdf"), source("note.txt")]

    parts = await reader(folder).read(sources)

    assert [part["type"] for part in parts] == ["image", "file", "text"]
    assert parts[0] == part_of(PNG, detail="low")
    assert parts[1]["name"] == "invoice.pdf"
    assert parts[2]["text"] == "note.txt:\n\npaid"


async def test_without_a_folder_no_path_is_read(folder: Path) -> None:
    with pytest.raises(AttachmentRefused, match=r"attachments\[0\].*set attachments\.folder"):
        await reader().read([source(str(folder / "note.txt"))])


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.txt", "2026/../../secret.txt", "/etc/passwd", "2026/../note.txt"),
        *("note.txt\x00.png", "a/" * 51 + "b", ".", "..", "2026", "~/secret.txt"),
    ],
)
async def test_a_path_that_leads_elsewhere_is_refused(folder: Path, path: str) -> None:
    with pytest.raises(AttachmentRefused) as refused:
        await reader(folder).read([source(path)])

    assert "secret" not in str(refused.value).replace(path, "")


@given(st.lists(st.sampled_from(
    ["..", ".", "", "/", "in", "2026", "note.txt", "secret.txt", "up", "~", "\x00", "a b", "é"]
), max_size=6))  # fmt: skip
def test_no_path_reads_a_secret(folder_with_links: Path, parts: list[str]) -> None:
    path = "/".join(parts)

    try:
        found = reader(folder_with_links).read_here([source(path)])
    except AttachmentRefused:
        return
    assert found is None or found[0]["text"] == "note.txt:\n\npaid"


async def test_no_link_and_no_pipe_is_read(folder: Path) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "inner.txt").symlink_to(folder / "note.txt")
    (folder / "up").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe.txt")

    for path in ("link.txt", "inner.txt", "up/secret.txt", "pipe.txt"):
        with pytest.raises(AttachmentRefused):
            await reader(folder).read([source(path)])


async def test_a_folder_that_becomes_a_link_while_it_is_read_gives_no_secret(folder: Path) -> None:
    (folder / "secret.txt").write_text("open")
    outside, inside = folder.parent / "outside", folder / "inside"
    outside.mkdir()
    (outside / "note.txt").write_text("secret")
    (folder / "real").mkdir()
    (folder / "real" / "note.txt").write_text("open")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for target in (folder / "real", outside):
                inside.unlink(missing_ok=True)
                inside.symlink_to(target)

    thread = threading.Thread(target=swap)
    thread.start()
    read: set[str] = set()
    try:
        for _ in range(300):
            try:
                (part,) = await reader(folder).read([source("inside/note.txt")])
            except AttachmentRefused:
                continue
            read.add(part["text"])
    finally:
        ended.set()
        thread.join()
    assert not any("secret" in text for text in read)


async def test_a_missing_file_is_refused_with_a_remedy(folder: Path) -> None:
    with pytest.raises(AttachmentRefused, match=r"there is no file 'gone.png'.*put it there"):
        await reader(folder).read([source("gone.png")])


async def test_base64_is_decoded_with_and_without_line_breaks() -> None:
    lines = "\n".join(encoded(PNG)[start : start + 20] for start in range(0, 100, 20))
    lines += encoded(PNG)[100:]

    (part,) = await reader().read([source(lines, "base64")])

    assert part == part_of(PNG)


@pytest.mark.parametrize("value", ["nö", "iVBORw0KGgo=", "a", "====", encoded(b"PK\x03\x04zip")])
async def test_what_is_no_file_in_base64_is_refused(value: str) -> None:
    with pytest.raises(AttachmentRefused, match=r"attachments\[0\]: (is not base64|the file)"):
        await reader().read([source(value, "base64")])


async def test_the_limit_counts_all_attachments_of_an_agent(folder: Path) -> None:
    limit = 2 * len(PNG) + 10
    twice = [source("2026/scan.png"), source(encoded(PNG), "base64", 1)]
    both = AttachmentSettings(folder=folder, max_bytes=limit)

    assert len(await AttachmentReader(both, in_thread=at_once).read(twice)) == 2
    for third in (source("2026/scan.png", number=2), source(encoded(PNG), "base64", 2)):
        with pytest.raises(AttachmentRefused, match=r"attachments\[2\].*raise attachments.max_byt"):
            await AttachmentReader(both, in_thread=at_once).read([*twice, third])


async def test_a_pdf_with_too_many_pages_is_refused(folder: Path) -> None:
    (folder / "long.pdf").write_bytes(pdf("a", "b", "c"))

    with pytest.raises(AttachmentRefused, match="has 3 pages, the limit is 2"):
        await reader(folder, max_pages=2).read([source("long.pdf")])


async def test_a_file_that_cannot_be_measured_is_refused_with_its_name(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"%PDF-1.7 but no more")

    with pytest.raises(AttachmentRefused, match=r"the file \('bad.png'\) has no pages"):
        await reader(folder).read([source("bad.png")])


async def test_a_name_is_shown_without_control_characters_and_is_short(folder: Path) -> None:
    name = "a\nb\u202ec" + "x" * 150 + ".pdf"
    (folder / name).write_bytes(pdf("a"))

    (part,) = await reader(folder).read([source(name)])

    assert part["name"].isprintable()
    assert len(part["name"]) == 100
    assert part["name"].endswith("x.pdf")


async def test_a_plan_reads_what_is_here_and_leaves_the_rest_open(folder: Path) -> None:
    here = [source("2026/scan.png"), source(encoded(PNG), "base64")]

    assert reader(folder).read_here(here) == await reader(folder).read(here)
    assert reader(folder).read_here([*here, source("https://a/b.png", "url")]) is None
    assert reader(folder).read_here([source("gone.png")]) is None
    assert reader().read_here([source("2026/scan.png")]) is None
    with pytest.raises(AttachmentRefused):
        reader(folder).read_here([source("../secret.txt")])


async def test_the_hash_of_attachments_changes_with_each_byte_name_order_and_detail(
    folder: Path,
) -> None:
    groups = [
        [part_of(PNG)],
        [part_of(png(20, 11))],
        [part_of(PNG, detail="low")],
        [part_of(PNG), part_of(b"a")],
        [part_of(b"a"), part_of(PNG)],
        [part_of(pdf("a"), name="a.pdf")],
        [part_of(pdf("a"), name="b.pdf")],
        [],
    ]

    assert len({digest_of(parts) for parts in groups}) == len(groups)
    assert digest_of([part_of(PNG)]) == digest_of([part_of(PNG)])
