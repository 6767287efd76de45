"""The programs of docs/tutorial.md, and the commands whose output the page shows.

To write the outputs anew: ``python -m tests.support.tutorial``. A console block of the page with
the word ``shown`` has commands that are typed, and their outputs. ``last=12`` keeps the last 12
lines of each output, ``first=12`` keeps the first 12 lines, and ``exit=3`` is the exit code of the
last command. In a command, ``RUN`` is the newest run, ``SIMULATOR`` is the simulator's address, and
``WORKER`` is a worker's process.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.markdown import FENCE, ROOT, Block, blocks
from tests.support.stack import search_path
from tests.support.terminal import say
from tests.support.waiting import wait_until

PAGE = ROOT / "docs" / "tutorial.md"
PROGRAMS = ROOT / "docs" / "tutorial"
WIDTH = 118
COMMAND_S = 120


@dataclass(frozen=True)
class Desk:
    """A folder with the tutorial's programs, in which `agentchord up --simulator` runs."""

    folder: Path
    up: psutil.Process
    ready: dict[str, Any]

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the page; ``curl``, ``sed`` and ``kill`` need no program."""
        words = shlex.split(self._filled(command))
        if words[0] == "curl":
            self._post(words[-1], words[words.index("-d") + 1])
        elif words[0] == "kill":
            self._kill(int(words[-1]))
        elif words[0] == "sed":
            self._substitute(words[1], words[2], words[-1])
        else:
            return self._execute(words)
        return subprocess.CompletedProcess(command, 0, "", "")

    def newest_run(self) -> str:
        """Return the id of the newest run."""
        found: str = self.answer("runs", "--limit", "1")[0]["run_id"]
        return found

    def answer(self, *words: str) -> Any:
        """Return the JSON of an `agentchord` command."""
        done = self._execute(["agentchord", *words, "--json"])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def simulator_says(self, route: str) -> Any:
        """Return the JSON of one of the simulator's own routes, such as ``ledger/summary``."""
        with urllib.request.urlopen(f"{self._simulator}/_simulator/{route}") as answer:
            return json.load(answer)

    @property
    def _simulator(self) -> str:
        address: str = self.ready["simulator"]["OPENAI_BASE_URL"]
        return address.removesuffix("/v1")

    def _filled(self, command: str) -> str:
        if "RUN" in command:
            command = command.replace("RUN", self.newest_run())
        if "WORKER" in command:
            command = command.replace("WORKER", str(self._workers()[0].pid))
        return command.replace("SIMULATOR", self._simulator)

    def _execute(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        programs = {"agentchord": ["-m", "app.cli"], "python": []}
        return subprocess.run(
            [sys.executable, *programs[words[0]], *words[1:]],
            cwd=self.folder,
            env=environment(self.folder),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def _post(self, address: str, body: str) -> None:
        with urllib.request.urlopen(address, data=body.encode()):
            pass

    def _substitute(self, rule: str, source: str, target: str) -> None:
        _, old, new, _ = rule.split("/")
        text = (self.folder / source).read_text(encoding="utf-8")
        (self.folder / target).write_text(text.replace(old, new), encoding="utf-8")

    def _kill(self, pid: int) -> None:
        """Kill a worker of this desk, and no other process, while calls are in flight."""
        (worker,) = [process for process in self._workers() if process.pid == pid]
        wait_until(
            lambda: self.simulator_says("ledger/summary")["in_flight"] >= 8,
            what="both workers have calls in flight",
        )
        worker.send_signal(signal.SIGKILL)

    def _workers(self) -> list[psutil.Process]:
        servers = [
            each for each in self.up.children() if "app.local_stack.forking" in each.cmdline()
        ]
        forked = [each for server in servers for each in server.children()]
        return [each for each in forked if each.pid != self.ready["pids"]["scheduler"]]


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a user who has no keys and no services."""
    own = re.compile(r"(AGENTCHORD|OPENAI|ANTHROPIC)_|(DATABASE|REDIS)_URL|COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not own.match(name)}
    return {
        **kept,
        "PYTHONPATH": search_path(),
        "AGENTCHORD_HOME": str(folder / "home"),
        "AGENTCHORD_IMPORTS": "tools",
    }


@contextmanager
def at_the_desk(folder: Path) -> Iterator[Desk]:
    """Copy the programs into a folder, and run the stack there."""
    shutil.copytree(PROGRAMS, folder, dirs_exist_ok=True)
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up", "--simulator", "--json"],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert up.stdout is not None
        line = up.stdout.readline()
        assert line, (folder / "up.log").read_text(errors="replace")
        yield Desk(folder, psutil.Process(up.pid), json.loads(line))
    finally:
        up.terminate()
        up.communicate(timeout=COMMAND_S)


def shown_blocks() -> list[Block]:
    """Return the blocks of the page whose commands are typed."""
    return [block for block in blocks(PAGE) if "shown" in block.words]


def typed(block: Block) -> list[str]:
    """Return the commands of a block."""
    return [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]


def type_block(desk: Desk, block: Block) -> str:
    """Type the commands of a block; return the block with the output of each command.

    Raises:
        AssertionError: If a command fails, or the last one ends with another exit code than the
            block says.
    """
    facts = dict(word.split("=") for word in block.words if "=" in word)
    *before, final = typed(block)
    lines: list[str] = []
    for command in (*before, final):
        done = desk.type(command)
        wanted = int(facts.get("exit", 0)) if command is final else 0
        assert done.returncode == wanted, f"{block.place}: {done.returncode}: {done.stderr}"
        lines += [f"$ {command}", *_shortened(done.stdout, facts)]
    return "\n".join(lines) + "\n"


def _shortened(output: str, facts: Mapping[str, str]) -> list[str]:
    """Keep the first or the last lines of an output, and wrap long lines into at most two."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    if 0 < (first := int(facts.get("first", 0))) < len(lines):
        lines = [*lines[:first], "..."]
    if 0 < (last := int(facts.get("last", 0))) < len(lines):
        lines = ["...", *lines[-last:]]
    return [part for line in lines for part in (_wrapped(line) if len(line) > WIDTH else [line])]


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, max_lines=2, placeholder=" …")


def main() -> None:
    """Write the outputs of the page anew."""
    with tempfile.TemporaryDirectory() as folder, at_the_desk(Path(folder)) as desk:
        texts: list[str] = []
        for block in shown_blocks():
            say(block.text.splitlines()[0])
            texts.append(type_block(desk, block))
    new = iter(texts)

    def written(match: re.Match[str]) -> str:
        is_shown = "shown" in match[1].split()
        return f"```{match[1]}\n{next(new)}```" if is_shown else match[0]

    PAGE.write_text(FENCE.sub(written, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
