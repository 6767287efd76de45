"""The check that no output of a test has the password of a service."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.configuration.url_parts import secrets_of
from app.embedded import ServiceUrls
from tests.support.pace import scaled
from tests.support.planted import PLANTED, assert_not_logged, assert_not_printed, plant


def test_every_url_of_a_service_has_the_password() -> None:
    urls = plant(
        ServiceUrls(
            database_url="postgresql+psycopg://agentchord@/agentchord?host=%2Fs&port=5432",
            redis_url="unix:///s/redis.sock?db=0",
        )
    )

    assert secrets_of(urls.database_url) == secrets_of(urls.redis_url) == {PLANTED}


def test_a_printed_and_a_logged_password_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text(f"connecting to redis://:{PLANTED}@cache\n")

    with pytest.raises(AssertionError, match="was printed"):
        assert_not_printed("fine", f"one\n{PLANTED}\n")
    with pytest.raises(AssertionError, match="was printed"):
        assert_not_logged(tmp_path)


def test_a_test_that_prints_the_password_fails(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1]
    (tmp_path / "test_leak.py").write_text(f"def test_leak():\n    print({PLANTED!r})\n")

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-c", str(folder.parent / "pyproject.toml"), "--rootdir", str(folder.parent)),
            *("-p", "tests.support.planted", str(tmp_path / "test_leak.py")),
        ],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )

    assert done.returncode == 1, done.stdout
    assert "the password of a service was printed" in done.stdout
