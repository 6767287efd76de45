"""Functions of the configuration: how their paths are written and imported."""

import pytest

from app.configuration.functions import load_function
from app.configuration.settings import load_settings
from app.errors import ConfigurationError


def test_a_function_is_found_by_its_path() -> None:
    found = load_function("on_failure", "app.examples.alerts:log_failure")

    assert found.__name__ == "log_failure"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_module:f", "ModuleNotFoundError"),
        ("app.errors:no_such_name", "AttributeError"),
        ("app.errors:__doc__", "is a str, not a function"),
    ],
)
def test_a_function_that_is_not_there_is_refused_with_its_setting(path: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^on_failure: '{path}' .*{reason}"):
        load_function("on_failure", path)


@pytest.mark.parametrize("path", ["alerts", "acme.alerts", "acme/alerts:tell", "acme:", ":tell"])
def test_a_path_that_is_written_otherwise_is_refused_and_not_shown(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"package\.module:function") as found:
        load_settings(on_failure=path)

    assert path not in str(found.value)
