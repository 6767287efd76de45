"""The tools of a folder reach only its files."""

import os
from pathlib import Path

import pytest

from app.configuration.sections import FileTools
from app.tools.builtin.files import FolderTools, file_tools

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, beside a secret that is not in it."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "work"
    (folder / "inner").mkdir(parents=True)
    (folder / "note.txt").write_text("grüße")
    return folder


@pytest.fixture
def tools(folder: Path) -> FolderTools:
    return FolderTools(folder, max_bytes=100)


def test_files_are_listed_read_and_written(tools: FolderTools, folder: Path) -> None:
    written = tools.write_file("new/deep/file.txt", "one")
    again = tools.write_file("new/deep/file.txt", "three")

    assert (written, again) == ("wrote 3 bytes", "wrote 5 bytes")
    assert (folder / "new/deep/file.txt").read_text() == "three"
    assert tools.read_file("./note.txt") == "grüße"
    assert tools.list_files() == {
        "entries": [
            {"name": "inner", "kind": "folder", "bytes": 0},
            {"name": "new", "kind": "folder", "bytes": 0},
            {"name": "note.txt", "kind": "file", "bytes": 7},
        ],
        "more": False,
    }
    assert [entry["name"] for entry in tools.list_files("new/deep")["entries"]] == ["file.txt"]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "inner/../../secret.txt",
        "/etc/passwd",
        "inner/../note.txt",
        "note.txt\x00.png",
        "a/" * 51 + "b",
        "",
        ".",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(tools: FolderTools, path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        tools.read_file(path)
    with pytest.raises(ValueError, match="path"):
        tools.write_file(path, "x")


def test_no_symbolic_link_is_followed(tools: FolderTools, folder: Path) -> None:
    (folder / "out").symlink_to(folder.parent)
    (folder / "file").symlink_to(folder.parent / "secret.txt")

    for path in ("out/secret.txt", "file"):
        with pytest.raises(OSError, match=r"symbolic|directory"):
            tools.read_file(path)
    with pytest.raises(OSError, match=r"symbolic|directory"):
        tools.list_files("out")
    with pytest.raises(OSError, match=r"symbolic|directory"):
        tools.write_file("out/new.txt", "x")
    tools.write_file("file", "mine")

    assert (folder.parent / "secret.txt").read_text() == "secret"
    assert not (folder / "file").is_symlink()
    assert {entry["kind"] for entry in tools.list_files()["entries"]} == {"folder", "file", "other"}


def test_what_is_too_large_or_no_text_is_refused(tools: FolderTools, folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * 101)
    (folder / "binary").write_bytes(b"\xff\x00")

    with pytest.raises(ValueError, match="more than 100 bytes"):
        tools.read_file("large")
    with pytest.raises(ValueError, match="101 bytes, the limit is 100"):
        tools.write_file("other", "x" * 101)
    with pytest.raises(ValueError, match="is not a text in UTF-8"):
        tools.read_file("binary")
    assert sorted(path.name for path in folder.iterdir()) == [
        "binary",
        "inner",
        "large",
        "note.txt",
    ]


def test_what_is_no_file_keeps_nobody_waiting(tools: FolderTools, folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    with pytest.raises(ValueError, match="'pipe' is not a file"):
        tools.read_file("pipe")
    with pytest.raises((OSError, ValueError)):
        tools.read_file("inner")
    with pytest.raises(OSError, match="inner"):
        tools.write_file("inner", "x")
    assert sorted(path.name for path in folder.iterdir()) == ["inner", "note.txt", "pipe"]


async def test_they_are_there_if_the_operator_names_a_folder(folder: Path) -> None:
    listing, reading, writing = file_tools(FileTools(folder=folder))

    assert file_tools(FileTools()) == ()
    assert [listing.name, reading.name, writing.name] == ["list_files", "read_file", "write_file"]
    assert (await reading.call('{"path": "note.txt"}')).text == "grüße"
    assert (await reading.call('{"path": "../secret.txt"}')).is_error
