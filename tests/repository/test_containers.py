"""The files under docker/ name settings, commands, options and queues that exist."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError

from app.configuration.service_urls import read_postgres_url, read_redis_url
from app.configuration.settings import load_settings
from app.domain.agent import PROVIDERS
from app.embedded.redis import find_program
from tests.support.command_line import is_known
from tests.support.markdown import ROOT
from tests.support.waiting import wait_until

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


def test_only_the_workers_of_agents_get_the_keys_of_providers() -> None:
    services = compose()["services"]
    containers = {
        found["metadata"]["name"]: str(found["spec"]["template"]["spec"]["containers"])
        for found in kubernetes_objects()
        if found["kind"] in ("Deployment", "Job")
    }
    secrets = [found for found in kubernetes_objects() if found["kind"] == "Secret"]
    (keys,) = [found for found in secrets if "OPENAI_API_KEY" in found["stringData"]]

    in_compose = {
        name for name, each in services.items() if "API_KEY" in str(each.get("environment"))
    }
    in_kubernetes = {name for name, text in containers.items() if keys["metadata"]["name"] in text}

    assert in_compose == {"worker"}
    assert in_kubernetes == {"agentchord-worker"}
    assert [name for name, text in containers.items() if "API_KEY" in text] == []


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


@pytest.mark.parametrize(
    "password",
    ["%@:/?#[]!$&'()*+,;= \"\\é", "--x", "-x", '"a', " a ", "a\\nb", "\\x41", "#a", "$(id)", "%s"],
)
def test_redis_of_compose_gets_every_password_as_it_is(password: str, tmp_path: Path) -> None:
    shell, _, script = compose()["services"]["redis"]["command"]
    program, socket = find_program().path, tmp_path / "socket"
    here = script.replace("$$", "$").replace("/tmp/redis.conf", str(tmp_path / "redis.conf"))
    here = here.replace("exec redis-server", f"exec {program}")
    command = [shell, "-c", f"{here.rstrip()} --port 0 --unixsocket {socket}"]
    environment = {"REDIS_PASSWORD": password, "PATH": os.environ["PATH"]}

    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as server:
        try:
            wait_until(socket.is_socket, what="Redis listens")
            with Redis(unix_socket_path=str(socket), password=password) as redis:
                assert redis.ping()
            with Redis(unix_socket_path=str(socket)) as redis, pytest.raises(AuthenticationError):
                redis.ping()
            shown = Path(f"/proc/{server.pid}/cmdline")
            assert password.encode() not in (shown.read_bytes() if shown.exists() else b"")
        finally:
            server.kill()


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
