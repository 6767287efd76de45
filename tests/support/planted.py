"""A password in the URLs of all tests, which no process may print.

The embedded servers trust everybody who reaches their sockets, so they accept the password.
"""

from collections.abc import Generator
from pathlib import Path

import pytest

from app.configuration.url_parts import with_password
from app.embedded import ServiceUrls

PLANTED = "Zq9-planted"


def plant(urls: ServiceUrls) -> ServiceUrls:
    """Return the URLs with the password."""
    redis = urls.redis_url.replace("unix://", "unix://default@", 1)
    return ServiceUrls(
        database_url=with_password(urls.database_url, PLANTED),
        redis_url=with_password(redis, PLANTED),
    )


def assert_not_printed(*outputs: str) -> None:
    """Check that no output has the password."""
    for output in outputs:
        line = next((line for line in output.splitlines() if PLANTED in line), None)
        assert line is None, f"the password of a service was printed: {line}"


def assert_not_logged(folder: Path) -> None:
    """Check that no log in a folder has the password."""
    assert_not_printed(*(log.read_text(errors="replace") for log in folder.rglob("*.log")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose output has the password that is planted in the URLs of all tests."""
    report = yield
    try:
        assert_not_printed(*(text for _, text in report.sections))
    except AssertionError as error:
        report.outcome, report.longrepr = "failed", str(error)
    return report
