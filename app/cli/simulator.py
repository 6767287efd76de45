"""`agentchord simulator`: the simulated providers, in the foreground."""

import typer

from app.simulator.__main__ import main


def simulator(context: typer.Context) -> None:
    """Serve simulated OpenAI and Anthropic APIs.

    They answer in plausible texts, keep rate limits, fail on demand and record what they served.
    """
    main(context.args, prog="agentchord simulator")
