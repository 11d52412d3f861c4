"""How alembic reaches the database: by the URL that `service.storage.migrate` or the environment names."""

from alembic import context
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import NullPool

from service.storage.tables import METADATA


def run() -> None:
    """This function will run the revisions in one transaction each: a crash leaves none of them half done."""
    url = context.config.attributes.get("url") or context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit("name the database: fluxgate migrate, or alembic -x with sqlalchemy.url set")
    # A host that drops packets is named within seconds, not minutes.
    waits = {"connect_timeout": 5} if url.startswith("postgresql") else {}
    engine = create_engine(url, poolclass=NullPool, connect_args=waits)
    if engine.dialect.name == "sqlite":
        _begin_by_ourselves(engine)
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # Two releases that start at once must not both migrate: the second waits here until the first has
            # done all revisions. A lock of the session, since one of a transaction ends with the first revision.
            connection.exec_driver_sql("SELECT pg_advisory_lock(7108423)")
            connection.commit()
        context.configure(
            connection=connection,
            target_metadata=METADATA,
            transaction_per_migration=True,
            transactional_ddl=True,
            render_as_batch=connection.dialect.name == "sqlite",
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()


def _begin_by_ourselves(engine: Engine) -> None:
    """Python's sqlite3 begins no transaction before DDL: left alone, each statement would be its own."""
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


run()
