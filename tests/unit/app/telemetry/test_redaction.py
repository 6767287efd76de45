"""Secrets in every part of a log line: none is shown."""

import io
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote
from uuid import uuid4

import pytest
import structlog

from app.configuration.sections import LoggingSettings
from app.configuration.settings import load_settings
from app.telemetry.logging import configure_logging
from app.telemetry.redaction import HIDDEN, Redactor, learn, without_learned

PASSWORD = "correct horse/battery"
KEYS = (
    "sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
    "sk-proj-ABCDEFGHIJKLMNOPQRST_uv",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "xoxb-1234567890-abcdefghijkl",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghijklmnopqrstuvw",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log as JSON lines."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging(LoggingSettings(level="INFO", format="json"), Redactor([PASSWORD]))
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("key", KEYS)
def test_what_looks_like_a_key_is_hidden(key: str) -> None:
    text = Redactor().text(f"the key {key} is wrong, see https://x.test/keys")

    assert text == f"the key {HIDDEN} is wrong, see https://x.test/keys"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://joe:hunter22@db:5432/x", f"postgresql://joe:{HIDDEN}@db:5432/x"),
        ("Authorization: Bearer abcdefghijklmnop", f"Authorization: Bearer {HIDDEN}"),
        ('{"api_key": "a-value-of-mine"}', f'{{"api_key": "{HIDDEN}"}}'),
        ("client_secret=abcdefgh12&x=1", f"client_secret={HIDDEN}&x=1"),
    ],
)
def test_a_password_is_hidden_and_the_rest_stays(text: str, expected: str) -> None:
    assert Redactor().text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "tokens_per_minute=1200 of openai/default, task-abcdefghijklmnopqrstuvw",
        "agent 'sk-1' answered 12 bytes",
        "https://api.test:8080/v1/models",
        "run 019388c2-7e4a-7b5c-9d53-2f0f4f8f0a11 of the secretary: password reset",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert Redactor(["short"]).text(text) == text


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece", ["a-", "sk-", "eyJ-", "api_key", "://u", "secret ", "bearer ", "-----BEGIN A", "xoxb-"]
)
def test_hostile_text_takes_no_longer_than_any_other(piece: str) -> None:
    assert Redactor([PASSWORD]).text(piece * 20_000)


def test_a_known_value_is_hidden_in_every_spelling() -> None:
    redactor = Redactor([PASSWORD])

    for spelt in (PASSWORD, "correct%20horse%2Fbattery"):
        assert redactor.text(f"<{spelt}>") == f"<{HIDDEN}>"


def test_a_secret_that_a_process_learns_is_hidden_by_every_redactor() -> None:
    redactor = Redactor([PASSWORD])
    token = f"opaque+token/{uuid4().hex}"

    learn(token)
    learn("short")

    for spelt in (token, quote(token, safe="")):
        assert redactor.text(f"{PASSWORD} <{spelt}> short") == f"{HIDDEN} <{HIDDEN}> short"


def test_the_oldest_learned_secrets_are_forgotten() -> None:
    tokens = [f"opaque-token-{uuid4().hex}" for _ in range(150)]

    for token in tokens:
        learn(token)

    assert without_learned(tokens[0]) == tokens[0]
    assert [without_learned(token) for token in tokens[50:]] == [HIDDEN] * 100


def test_no_field_and_no_traceback_of_a_log_line_has_a_planted_secret(output: io.StringIO) -> None:
    log = structlog.get_logger("planted")

    log.info("told", text=PASSWORD, nested={PASSWORD: [KEYS[0], {"deep": (PASSWORD,)}]}, count=3)
    log.info("error", error=ValueError(PASSWORD))
    log.info("%s in the event", PASSWORD)
    logging.getLogger("other").warning("of the standard library: %s", KEYS[1])
    try:
        raise RuntimeError(PASSWORD)
    except RuntimeError:
        log.exception("crashed")

    text = output.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 5
    assert lines[0]["count"] == 3
    assert "Traceback" in lines[4]["exception"]
    assert text.count(HIDDEN) >= 7
    assert not any(secret in text for secret in (PASSWORD, *KEYS))


def test_the_settings_know_every_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-without-form")
    monkeypatch.setenv("DATABASE_URL", "postgresql://joe:pass%2Fword@db/x")
    monkeypatch.setenv("CRM_TOKEN", "a-token-of-an-agent")

    values = load_settings().secret_values()

    assert {"a-key-without-form", "pass%2Fword", "a-token-of-an-agent"} <= values
    assert not any("://" in value for value in values)
