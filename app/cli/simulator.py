"""`agentchord simulator`: the simulated providers, in the foreground."""

import typer


def simulator(context: typer.Context) -> None:
    """Serve simulated OpenAI and Anthropic APIs on a local port; --help lists its options."""
    from app.simulator.__main__ import main

    main(context.args)
