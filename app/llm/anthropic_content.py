"""Translates the parts of a message (``app.llm.parts``) to Anthropic's blocks."""

from typing import Any

from app.llm.parts import Part, is_media


def blocks_of(content: Any) -> Any:
    """Return a content in Anthropic's form; only images and files are changed."""
    if not isinstance(content, list | tuple):
        return content
    return [_block(part) if is_media(part) else part for part in content]


def _block(part: Part) -> dict[str, Any]:
    source = {"type": "base64", "media_type": part["media_type"], "data": part["data"]}
    if part["type"] == "image":
        return {"type": "image", "source": source}
    block = {"type": "document", "source": source}
    return block | {"title": part["name"]} if part.get("name") else block
