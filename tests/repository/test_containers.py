"""The files under docker/ name settings, commands, options and queues that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.configuration.service_urls import read_postgres_url, read_redis_url
from app.configuration.settings import load_settings
from app.domain.agent import PROVIDERS
from tests.support.command_line import is_known
from tests.support.markdown import ROOT

DOCKER = ROOT / "docker"


def test_the_configuration_of_the_containers_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data,) = [found["data"] for found in kubernetes_objects() if found["kind"] == "ConfigMap"]
    inside = tmp_path / "agentchord.yaml"
    inside.write_text(data["agentchord.yaml"], encoding="utf-8")

    for file in (DOCKER / "agentchord.yaml", inside):
        monkeypatch.setenv("AGENTCHORD_CONFIG", str(file))
        assert load_settings().rate_limits.keys() == set(PROVIDERS)


def test_containers_run_commands_that_exist_with_queues_that_exist() -> None:
    lines = [" ".join(arguments) for arguments in (*compose_commands(), *kubernetes_commands())]

    assert {line.split()[0] for line in lines} == {"worker", "migrate", "flower", "exporter"}
    assert [line for line in lines if not is_known(*line.partition(" ")[::2])] == []


def test_compose_asks_for_no_password_of_a_profile_that_is_not_used() -> None:
    services = compose()["services"]
    asked = {
        name
        for name, service in services.items()
        if "profiles" not in service or "build" in service
        for value in service.get("environment", {}).values()
        if ":?" in str(value)
    }

    optional = {name: services[name] for name in services if "profiles" in services[name]}
    needed = set(re.findall(r"\$\{(\w+):\?", str(optional)))
    known = set(re.findall(r"\$\{(\w+):\?", str([services[name] for name in asked])))

    assert needed <= known


@pytest.mark.parametrize("service", ["migrate", "scheduler", "worker", "flower", "exporter"])
def test_every_password_works_in_the_containers(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = compose()["services"][service]["environment"]
    password = "%@:/?#[]!$&'()*+,;= \"\\"
    for name in ("DATABASE_URL", "REDIS_URL"):
        assert "$" not in environment[name]
        monkeypatch.setenv(name, environment[name])
    for name in ("AGENTCHORD_DATABASE_PASSWORD", "AGENTCHORD_REDIS_PASSWORD"):
        assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", environment[name])
        monkeypatch.setenv(name, password)

    settings = load_settings()

    assert settings.database_url is not None
    assert settings.redis_url is not None
    sent = read_postgres_url(settings.database_url.get_secret_value()).parameters["password"]
    assert sent == password
    assert read_redis_url(settings.redis_url.get_secret_value()).password == password


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    return found


def compose_commands() -> list[list[str]]:
    services = compose()["services"]
    ours = ("migrate", "scheduler", "worker", "flower", "exporter")
    return [services[name]["command"] for name in ours]


def kubernetes_commands() -> list[list[str]]:
    return [
        container["args"]
        for found in kubernetes_objects()
        if found["kind"] in ("Deployment", "Job")
        for container in found["spec"]["template"]["spec"]["containers"]
    ]


def kubernetes_objects() -> list[dict[str, Any]]:
    return [
        found
        for file in (DOCKER / "kubernetes").glob("*.yaml")
        for found in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]
