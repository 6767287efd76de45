"""The entry point of Alembic. It migrates on the connection that ``app.storage.schema`` opened."""

from alembic import context

from app.storage.tables import Table

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata
)
with context.begin_transaction():
    context.run_migrations()
