"""`agentchord schema`."""

import typer


def schema() -> None:
    """Print the JSON Schema of workflow files, for editors."""
    import json

    from app.workflow_files.json_schema import workflow_schema

    typer.echo(json.dumps(workflow_schema(), indent=2, ensure_ascii=False))
