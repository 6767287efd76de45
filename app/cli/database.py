"""`agentchord migrate`: the migration of the database."""

from app.cli.output import answer
from app.cli.parameters import AsJson
from app.embedded.connected import connected_settings, database_url
from app.storage import schema


def migrate(json: AsJson = False) -> None:
    """Migrate the database to the schema of this version."""
    url = database_url(connected_settings())
    before = schema.current(url)
    schema.upgrade(url)
    after = schema.HEAD
    answer(
        {"before": before, "after": after, "changed": before != after},
        f"the schema is up to date ({after})"
        if before == after
        else f"migrated from {before or 'an empty database'} to {after}",
        json=json,
    )
