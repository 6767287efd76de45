"""Alembic's entry point: migrates on the connection that ``app.storage.schema`` gives it."""

from alembic import context

from app.storage.tables import Table

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata
)
with context.begin_transaction():
    context.run_migrations()
