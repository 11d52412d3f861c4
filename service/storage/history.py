"""The history lines: appended in chains, read in order."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select

from service.domain.history import HistoryLine
from service.storage.database import Tx
from service.storage.statements import Row, Statement, insert_many
from service.storage.tables import HistoryRow, table

HISTORY = table(HistoryRow)
_INSERT = insert_many(HISTORY)
_OF_JOB = Statement(
    select(HISTORY)
    .where(HISTORY.c.job_id == bindparam("of_job"), HISTORY.c.seq > bindparam("after"))
    .order_by(HISTORY.c.seq)
    .limit(bindparam("most"))
)


def append(tx: Tx, lines: Sequence[tuple[str, HistoryLine]]) -> None:
    """This function will write history lines, each with its tenant."""
    tx.run_later(_INSERT, [{**_columns(line), "tenant": tenant} for tenant, line in lines])


def _columns(line: HistoryLine) -> dict[str, Any]:
    return {name: getattr(line, name) for name in HistoryLine.__slots__}


def of_job(tx: Tx, job_id: str, *, after: int = 0, most: int = 200) -> list[HistoryLine]:
    """This function will read a job's history, oldest first, from behind the line `after`."""
    return [_line(row) for row in tx.rows(_OF_JOB, of_job=job_id, after=after, most=most)]


def _line(row: Row) -> HistoryLine:
    values = {name: row[name] for name in HistoryLine.__slots__}
    return HistoryLine(**{**values, "moved": bool(row["moved"])})
