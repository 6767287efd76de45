"""`agentchord schema`: the JSON Schema of workflow files."""

import json

import typer

from app.workflow_files.json_schema import workflow_schema


def schema() -> None:
    """Print the JSON Schema of workflow files, for editors."""
    typer.echo(json.dumps(workflow_schema(), indent=2, ensure_ascii=False))
