from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import migrations
from app.errors import SchemaMismatch, ServiceUnavailable
from app.storage import schema
from app.storage.session import create_sync_engine
from app.storage.tables import Table


def test_the_migrations_make_exactly_the_tables_of_the_models(database_url: str) -> None:
    engine = create_sync_engine(database_url, application_name="agentchord test")

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        differences = compare_metadata(context, Table.metadata)
    engine.dispose()

    assert differences == []


def test_the_newest_migration_is_the_one_that_the_code_needs() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    revisions = [script.revision for script in scripts.walk_revisions()]

    assert schema.HEAD == scripts.get_current_head() == max(revisions)


def test_every_migration_can_be_undone(database_url: str) -> None:
    schema.downgrade(database_url)
    emptied = schema.current(database_url)
    schema.upgrade(database_url)

    assert emptied is None
    assert schema.current(database_url) == schema.HEAD


def test_an_empty_database_is_refused_with_the_remedy(database_url: str) -> None:
    schema.downgrade(database_url)

    with pytest.raises(SchemaMismatch, match="agentchord migrate"):
        schema.require(database_url)


@pytest.mark.parametrize(
    ("embedded", "remedy"), [(True, "`agentchord up`"), (False, "`agentchord migrate`")]
)
def test_a_database_without_tables_is_told_with_what_makes_them(
    embedded: bool, remedy: str
) -> None:
    assert remedy in schema.no_tables(embedded=embedded)


def test_a_newer_schema_is_refused(database_url: str) -> None:
    engine = create_sync_engine(database_url, application_name="agentchord test")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(SchemaMismatch, match="newer"):
        schema.upgrade(database_url)
    with pytest.raises(SchemaMismatch, match="newer"):
        schema.require(database_url)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        schema.require("postgresql://me:hunter2@127.0.0.1:1/nowhere")

    assert "127.0.0.1:1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
