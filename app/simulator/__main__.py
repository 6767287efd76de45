"""The command `python -m app.simulator`. The simulator runs on a port until a signal arrives."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from app.simulator.config import SimulatorConfig, config_with, options_in
from app.simulator.process import serve


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m app.simulator") -> None:
    """Read the command line, and serve until a signal arrives.

    If the port is in use, exit with the code 1.
    """
    parser = _parser(prog)
    options = parser.parse_args(argv)
    try:
        config = config_with(SimulatorConfig(), _changes(options))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        serve(
            config,
            host=options.host,
            port=options.port,
            ledger_path=options.ledger,
            exit_with_parent=options.exit_with_parent,
        )
    except OSError as error:
        parser.exit(1, f"cannot listen on {options.host}:{options.port}: {error}\n")


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    changes: dict[str, Any] = json.loads(options.config.read_text()) if options.config else {}
    given = {
        "latency_s": options.latency,
        "jitter_s": options.jitter,
        "time_to_first_token_s": options.time_to_first_token,
        "output_tokens": options.output_tokens,
        "cached_share": options.cached_share,
        "seed": options.seed,
        "limits": [options_in(text) for text in options.limit],
        "faults": [options_in(text) for text in options.fault],
    }
    return changes | {name: value for name, value in given.items() if value not in (None, [])}


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        description="Simulated OpenAI and Anthropic APIs for development, tests and load tests.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="0 takes a free port")
    add("--latency", type=float, metavar="S", help="seconds until an answer is complete")
    add("--jitter", type=float, metavar="S", help="up to this many seconds more, at random")
    add("--time-to-first-token", type=float, metavar="S", help="seconds until a stream begins")
    add("--output-tokens", type=int, metavar="N", help="size of every text reply")
    add("--cached-share", type=float, metavar="F", help="cached share of every prompt, 0 to 1")
    add("--seed", type=int, help="seed of the jitter and of random faults")
    add(
        "--limit",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="a rate limit, such as provider=openai,model=gpt-4o*,rpm=60,burst=1,tpm=30000",
    )
    add(
        "--fault",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="a fault, such as kind=status,status=503,rate=0.1 or kind=hang,first=2",
    )
    add("--config", type=Path, metavar="FILE", help="JSON file with the whole configuration")
    add("--ledger", type=Path, metavar="FILE", help="append every request as a line of JSON")
    add("--exit-with-parent", action="store_true", help="end when the parent process dies")
    return parser


if __name__ == "__main__":
    main()
