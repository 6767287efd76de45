"""Alembic's entry point: runs the migrations on the connection that ``app.storage.schema`` hands in."""

from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from app.storage.tables import Table


def run(connection: Connection) -> None:
    """Run the migrations inside one transaction of the given connection."""
    context.configure(connection=connection, target_metadata=Table.metadata)
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    engine = create_engine(context.config.attributes["url"], poolclass=NullPool)
    with engine.begin() as own:
        run(own)
