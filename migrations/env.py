"""How alembic reaches the database: by the URL that `service.storage.migrate` or the environment names."""

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from service.storage.tables import METADATA


def run() -> None:
    """This function will run the revisions in one transaction each."""
    url = context.config.attributes.get("url") or context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit("name the database: fluxgate migrate, or alembic -x with sqlalchemy.url set")
    # A host that drops packets is named within seconds, not minutes.
    waits = {"connect_timeout": 5} if url.startswith("postgresql") else {}
    engine = create_engine(url, poolclass=NullPool, connect_args=waits)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=METADATA,
            transaction_per_migration=True,
            render_as_batch=connection.dialect.name == "sqlite",
            compare_server_default=True,
        )
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                # Two releases that start at once must not both migrate: the second waits here.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7108423)")
            context.run_migrations()


run()
