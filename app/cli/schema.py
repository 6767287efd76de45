"""`agentchord schema`: the JSON Schema of workflow files."""

from app.cli.messages import tell
from app.cli.output import json_text
from app.workflow_files.json_schema import workflow_schema


def schema() -> None:
    """Print the JSON Schema of workflow files, for editors."""
    tell(json_text(workflow_schema(), indent=2))
