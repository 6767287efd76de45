"""The YAML file as a source of settings, and messages that name the source of a refused value."""

import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import ConfigurationError

if TYPE_CHECKING:
    from app.documents.files import Document

PREFIX = "AGENTCHORD_"
NESTED = "__"
#: Types of refusals whose messages this package writes. These messages already show the value,
#: unless the value is a secret.
OWN_MESSAGES = ("key", "refused", "value_error")
DOTENV = ".env"

Place = tuple[str | int, ...]


class YamlFile(PydanticBaseSettingsSource):
    """Reads the YAML file; another source gives the path of the file, the setting ``config``."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Refuse the call: the interface requires this method, but ``__call__`` reads the file."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """Return the values of the file; return an empty dict if no file is configured."""
        document = _document(self.current_state)
        if document is None or document.value is None:
            return {}
        if not isinstance(document.value, dict):
            raise document.error(f"is {shortened(document.value)}: give a mapping of settings")
        known = self.settings_cls.model_fields.keys() - {"config"}
        for key in document.value:
            if key not in known:
                hint = did_you_mean(key, known) or f"; known: {listed(sorted(known))}"
                raise document.error(f"there is no such key{hint}", (key,))
        # If all lines of a section are comments, the value of the section is null.
        return {key: value for key, value in document.value.items() if value is not None}


def check_dotenv(path: Path) -> None:
    """Refuse a ``.env`` that another user may have written; its settings choose servers and code.

    Raises:
        ConfigurationError: If the file belongs to another user than root, or if its group or every
            user may write to it.
        WorkflowFileError: If the file is not text in UTF-8.
    """
    try:
        found = path.stat()
    except OSError:
        return  # there is no such file, or pydantic reports it
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigurationError(
            f"{DOTENV} in {str(path.absolute().parent)!r} belongs to user id {found.st_uid}, but "
            f"this process runs as user id {os.geteuid()}: make the file yours with chown, or "
            "start in another folder"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"other users may write to {DOTENV} in {str(path.absolute().parent)!r}: check the "
            "file, then run `chmod go-w .env`"
        )
    # The import is late because most processes have no such file. A folder with this name is
    # ignored, and a pipe could be read only once.
    if stat.S_ISREG(found.st_mode):
        from app.documents.text import read_text

        read_text(path)


def explain_refusal(
    error: ValidationError,
    settings_cls: type[BaseSettings],
    overrides: Mapping[str, Any],
    secrets: Collection[str],
) -> str:
    """Explain the first refused value in one line: its place and the problem.

    Args:
        error: The refusal by pydantic.
        settings_cls: The settings that were loaded.
        overrides: The arguments of ``load_settings``.
        secrets: Fields whose values are never shown.
    """
    first = error.errors(include_url=False)[0]
    place: Place = tuple(first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    if (key := first.get("ctx", {}).get("key")) is not None:
        place = (*place, key)
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(place[-1]), settings_cls.model_fields)
        problem = f"there is no such setting{hint}"
    elif (
        first["type"] not in OWN_MESSAGES
        and place[0] not in secrets
        and isinstance(value, str | int | float)
    ):
        problem = f"is {shortened(value)}: {problem[0].lower()}{problem[1:]}"
    return _located(problem, place, settings_cls, overrides)


def explain_decoding(error: SettingsError) -> str:
    """Explain in one line that a variable does not contain JSON."""
    match = re.search(r'field "(\w+)" from source "(\w+)"', str(error))
    if not match:
        return str(error)
    name = f"{PREFIX}{match[1].upper()}"
    where = DOTENV if match[2].startswith("DotEnv") else "environment variable"
    return (
        f"{where} {name} is not JSON: give a JSON object, or a variable per key: {name}{NESTED}KEY"
    )


def _located(
    problem: str, place: Place, settings_cls: type[BaseSettings], overrides: Mapping[str, Any]
) -> str:
    field = ".".join(str(key) for key in place)
    if place[0] in overrides:
        return f"setting {field}: {problem}"
    environment, dotenv = EnvSettingsSource(settings_cls), DotEnvSettingsSource(settings_cls)
    document = _document({**dotenv(), **environment(), **overrides})
    # If several sources give the place or a part around the place, the deepest part has the value.
    for length in range(len(place), 0, -1):
        name = _variable(place[:length], settings_cls)
        for where, source in (("environment variable", environment), (DOTENV, dotenv)):
            if name.lower() in source.env_vars:
                inside = f": {field}" if length < len(place) else ""
                return f"{where} {name}{inside}: {problem}"
        if document and place[:length] in document.places():
            return str(document.error(problem, place))
    return f"setting {field}: {problem}"


def _variable(place: Place, settings_cls: type[BaseSettings]) -> str:
    field = settings_cls.model_fields.get(str(place[0]))
    prefix = PREFIX if field is None or field.validation_alias is None else ""
    return f"{prefix}{NESTED.join(map(str, place))}".upper()


def _document(state: Mapping[str, Any]) -> "Document | None":
    """Return the YAML file whose path the other sources give, or None if no source gives a path."""
    if not state.get("config"):
        return None
    # The import is late because most client processes have no file and need no YAML parser.
    from app.documents.files import read_document

    return read_document(state["config"])
