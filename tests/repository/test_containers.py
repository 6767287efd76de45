"""The files under docker/ name settings, commands, options and queues that exist."""

from pathlib import Path
from typing import Any

import pytest
import yaml

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


def compose_commands() -> list[list[str]]:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
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
