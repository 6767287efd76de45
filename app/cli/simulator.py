"""`agentchord simulator`: the simulated providers, in the foreground."""

import typer

from app.simulator.__main__ import main


def simulator(context: typer.Context) -> None:
    """Serve simulated OpenAI and Anthropic APIs.

    The APIs answer with plausible texts, enforce rate limits, fail on demand and record every
    request.
    """
    main(context.args, prog="agentchord simulator")
