"""The revisions build exactly what the models say, from every earlier revision, on both databases."""

import ast
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from service.storage import jobs, migrate
from service.storage.database import sqlalchemy_url, sqlite_path
from service.storage.drivers import open_driver
from service.storage.tables import METADATA
from tests.databases import PostgresDatabases
from tests.storage.world import Clock, count_in, insert_jobs, new_job, only

FOLDER = Path(migrate.__file__).resolve().parents[2] / "migrations"
REVISIONS = [script.revision for script in ScriptDirectory(str(FOLDER)).walk_revisions()][::-1]


def engine_of(url: str) -> Engine:
    return create_engine(sqlalchemy_url(url), poolclass=NullPool)


def differences(url: str) -> list[Any]:
    with engine_of(url).connect() as connection:
        # On SQLite alembic takes PostgreSQL's Identity for a missing default; the shapes compare defaults, too.
        options = {"compare_type": True, "compare_server_default": connection.dialect.name == "postgresql"}
        return compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)


def shape(url: str) -> dict[str, dict[str, Any]]:
    """Give what a database says of its tables, also what alembic does not compare."""
    inspector = inspect(engine_of(url))
    shapes = {}
    for table in inspector.get_table_names():
        if table == "alembic_version":
            continue
        shapes[table] = {
            "columns": {column["name"]: _told(column) for column in inspector.get_columns(table)},
            "checks": {check["name"]: check["sqltext"] for check in inspector.get_check_constraints(table)},
            "uniques": sorted(
                tuple(unique["column_names"]) for unique in inspector.get_unique_constraints(table)
            ),
            "indexes": {str(index["name"]): _told(index) for index in inspector.get_indexes(table)},
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign": sorted(str(_told(key)) for key in inspector.get_foreign_keys(table)),
        }
    return shapes


def _told(described: Any) -> dict[str, str]:
    told = {name: value for name, value in sorted(described.items()) if name != "comment"}
    # Where an index is partial, what it is partial to comes as an object that equals nothing but itself.
    wheres = {name: str(value) for name, value in told.get("dialect_options", {}).items()}
    return {name: str(wheres if name == "dialect_options" else value) for name, value in told.items()}


@pytest.fixture
def modelled(empty_database_url: str, postgres_databases: PostgresDatabases, tmp_path: Path) -> Any:
    """Give the shape of a second database of the same kind that was made by the models alone."""
    if empty_database_url.startswith("sqlite"):
        url = f"sqlite:///{tmp_path / 'modelled.db'}"
        METADATA.create_all(engine_of(url))
        return shape(url)
    name = postgres_databases.create_empty()
    METADATA.create_all(engine_of(postgres_databases.url(name)))
    made = shape(postgres_databases.url(name))
    postgres_databases.drop(name)
    return made


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the migrations be read from a copy that the test may add revisions to."""
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "_folder", lambda: folder)
    return folder


def add_revision(folder: Path, name: str, upgrade: str) -> str:
    """Write one more revision behind the newest."""
    newest = ScriptDirectory(str(folder)).get_current_head()
    (folder / "versions" / f"{name}.py").write_text(
        f'"""Revision {name}."""\n'
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = {name!r}\ndown_revision = {newest!r}\nbranch_labels = None\ndepends_on = None\n"
        f"def upgrade():\n    {upgrade}\n"
        "def downgrade():\n    pass\n"
    )
    return name


def test_from_nothing_to_exactly_the_models(empty_database_url: str, modelled: dict[str, Any]) -> None:
    assert migrate.is_behind(empty_database_url)
    migrate.upgrade(empty_database_url)
    assert not migrate.is_behind(empty_database_url)
    assert migrate.current_revision(empty_database_url) == migrate.newest_revision() == REVISIONS[-1]
    assert differences(empty_database_url) == []
    assert shape(empty_database_url) == modelled
    assert set(modelled) == set(METADATA.tables)


def test_the_comparison_sees_checks_and_partial_indexes(modelled: dict[str, Any]) -> None:
    assert sum(len(table["checks"]) for table in modelled.values()) >= 10
    partial = {
        name
        for table in modelled.values()
        for name, index in table["indexes"].items()
        if "where" in str(index)
    }
    assert partial == {
        "job_due",
        "work_claimed",
        "endpoint_listed",
        "endpoint_due",
        "endpoint_claimed",
        "endpoint_replaying",
        "delivery_dead",
        "delivery_due",
        "delivery_in_order",
    }


@pytest.mark.parametrize("revision", ["base", *REVISIONS])
def test_from_each_earlier_revision(empty_database_url: str, modelled: dict[str, Any], revision: str) -> None:
    migrate.upgrade(empty_database_url, revision)
    assert migrate.current_revision(empty_database_url) == (None if revision == "base" else revision)
    assert migrate.is_behind(empty_database_url) == (revision != REVISIONS[-1])
    migrate.upgrade(empty_database_url)
    migrate.upgrade(empty_database_url)
    assert not migrate.is_behind(empty_database_url)
    assert shape(empty_database_url) == modelled


def test_down_to_nothing_and_up_again(empty_database_url: str, modelled: dict[str, Any]) -> None:
    migrate.upgrade(empty_database_url)
    command.downgrade(migrate._config(empty_database_url), "base")
    assert shape(empty_database_url) == {}
    assert migrate.current_revision(empty_database_url) is None
    migrate.upgrade(empty_database_url)
    assert shape(empty_database_url) == modelled
    driver = open_driver(empty_database_url, Clock())
    assert driver.read(lambda tx: count_in(tx, "counter")) == 3
    driver.close()


def test_events_that_waited_for_a_number_get_it_and_are_handed_out_to_nobody(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url, "0001")
    with engine_of(empty_database_url).begin() as connection:
        connection.execute(text("UPDATE counter SET value = 7"))
        for place, seq in enumerate([6, 7, None, None, None]):
            connection.execute(
                text(
                    "INSERT INTO event (id, seq, tenant, type, at_ms, data) VALUES (:id, :seq, 't', 'x', 1, '{}')"
                ),
                {"id": f"evt_{place}", "seq": seq},
            )
    migrate.upgrade(empty_database_url)
    with engine_of(empty_database_url).connect() as connection:
        numbered = connection.execute(text("SELECT id, seq FROM event ORDER BY position")).all()
        counters = connection.execute(text("SELECT name, value FROM counter")).all()
    assert numbered == [(f"evt_{place}", 6 + place) for place in range(5)]
    assert dict(counters) == {"event_seq": 10, "fan_out": 10, "pruned_seq": 0}  # type: ignore[arg-type]


def test_a_file_that_does_not_exist_is_behind_and_stays_away(empty_sqlite_url: str) -> None:
    assert migrate.is_behind(empty_sqlite_url)
    assert not sqlite_path(empty_sqlite_url).exists()


def test_an_upgrade_that_rebuilds_a_table_keeps_every_row(
    sqlite_url: str, copied: Path, clock: Clock
) -> None:
    """SQLite changes a CHECK by building the table anew: what hangs on its rows must not go with the old one."""
    driver = open_driver(sqlite_url, clock)
    made = [new_job(f"job_{number}", metadata={"k": str(number)}) for number in range(20)]
    only(driver, lambda tx: insert_jobs(tx, made))
    name = add_revision(
        copied,
        "9000",
        "with op.batch_alter_table('job', recreate='always') as batch: "
        "batch.add_column(sa.Column('more', sa.Text(), nullable=True))",
    )
    driver.close()
    assert migrate.is_behind(sqlite_url)
    migrate.upgrade(sqlite_url)
    assert migrate.current_revision(sqlite_url) == name
    driver = open_driver(sqlite_url, clock)
    found = driver.read(lambda tx: jobs.load(tx, [job.id for job in made]))
    assert [found[job.id].job for job in made] == made
    assert driver.read(lambda tx: count_in(tx, "job_tag")) == 20
    driver.close()
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as file:
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    checks = {check["name"] for check in inspect(engine_of(sqlite_url)).get_check_constraints("job")}
    assert "job_completed_when_final" in checks


def test_an_upgrade_that_fails_leaves_all_as_it_was(database_url: str, copied: Path) -> None:
    """Whatever stops a revision half-way (here an error, else a crash), the next start can do it from the start."""
    before = shape(database_url)
    add_revision(
        copied,
        "9001",
        "op.add_column('job', sa.Column('more', sa.Text(), nullable=True)); "
        "op.create_table('another', sa.Column('id', sa.Text())); op.execute('SELECT no_such_column')",
    )
    with pytest.raises(Exception, match="no_such_column"):
        migrate.upgrade(database_url)
    assert migrate.current_revision(database_url) == REVISIONS[-1]
    assert shape(database_url) == before


def test_a_new_revision_is_written_as_a_valid_file(sqlite_url: str, copied: Path) -> None:
    command.revision(migrate._config(sqlite_url), message="add what is missing", rev_id="9002")
    [written] = copied.glob("versions/9002_*.py")
    told = ast.parse(written.read_text())
    assert (ast.get_docstring(told) or "").startswith("add what is missing.")
    migrate.upgrade(sqlite_url)
    assert migrate.current_revision(sqlite_url) == "9002"
    command.downgrade(migrate._config(sqlite_url), REVISIONS[-1])
    assert migrate.current_revision(sqlite_url) == REVISIONS[-1]


def test_the_service_may_lie_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: Path
) -> None:
    odd = tmp_path / "100%s of it"
    shutil.copytree(copied, odd)
    monkeypatch.setattr(migrate, "_folder", lambda: odd)
    assert migrate.newest_revision() == REVISIONS[-1]
    url = f"sqlite:///{tmp_path}/100%25s%20%3F%23.db"
    migrate.upgrade(url)
    assert not migrate.is_behind(url)
    assert (tmp_path / "100%s ?#.db").exists()


def run_upgrades(url: str, folder: Path, count: int = 2) -> list[subprocess.CompletedProcess[str]]:
    program = (
        "import sys; from pathlib import Path; from service.storage import migrate; "
        "migrate._folder = lambda: Path(sys.argv[2]); migrate.upgrade(sys.argv[1])"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, str(folder)],
            cwd=FOLDER.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    done = [(process, *process.communicate(timeout=60)) for process in running]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, out, err) for process, out, err in done
    ]


@pytest.mark.slow
def test_two_upgrades_at_once_do_each_revision_once(
    empty_database_url: str, copied: Path, modelled: dict[str, Any]
) -> None:
    slow: Callable[[str], str] = lambda sql: f"op.execute('{sql}'); import time; time.sleep(0.2)"  # noqa: E731
    add_revision(copied, "9003", slow("CREATE TABLE third (id TEXT)"))
    add_revision(copied, "9004", slow("CREATE TABLE fourth (id TEXT)"))
    for done in run_upgrades(empty_database_url, copied):
        assert done.returncode == 0, done.stderr[-2000:]
    assert migrate.current_revision(empty_database_url) == "9004"
    assert set(shape(empty_database_url)) == {*modelled, "third", "fourth"}
    with engine_of(empty_database_url).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM counter")).scalar() == 3


def test_a_new_file_is_in_wal_mode_before_anybody_serves_it(sqlite_url: str) -> None:
    """Of several connections that switch it at once, one finds the file locked."""
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
