"""Translates the parts of a message (``app.llm.parts``) to the two APIs of OpenAI."""

from collections.abc import Sequence
from typing import Any

from app.llm.parts import AUTO, Part, is_media

# The API takes no file without a name.
_NAME = "document.pdf"


def chat_content(content: Any) -> Any:
    """Return a content in the form of chat completions; only images and files are changed."""
    if not isinstance(content, list | tuple):
        return content
    return [_chat_part(part) if is_media(part) else part for part in content]


def responses_content(content: str | Sequence[Part] | None) -> list[dict[str, Any]]:
    """Return the content of a user's or a system's message in the form of the Responses API.

    Example:
        >>> responses_content("Hello.")
        [{'type': 'input_text', 'text': 'Hello.'}]
    """
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
    return [_response_part(part) for part in parts]


def _chat_part(part: Part) -> dict[str, Any]:
    if part["type"] == "file":
        file = {"filename": part.get("name") or _NAME, "file_data": _url(part)}
        return {"type": "file", "file": file}
    image = {"url": _url(part)}
    if detail := part.get("detail"):
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def _response_part(part: Part) -> dict[str, Any]:
    match part["type"]:
        case "text":
            return {"type": "input_text", "text": part["text"]}
        case "image":
            detail = part.get("detail") or AUTO
            return {"type": "input_image", "image_url": _url(part), "detail": detail}
        case "file":
            name = part.get("name") or _NAME
            return {"type": "input_file", "filename": name, "file_data": _url(part)}
    return dict(part)


def _url(part: Part) -> str:
    return f"data:{part['media_type']};base64,{part['data']}"
