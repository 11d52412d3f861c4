"""Core statements, compiled once for each database and run straight on its driver.

Parameters and results are plain values (text, integers, bytes, booleans): no type conversion stands between, which
is where most of the time of a small statement goes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    Integer,
    LargeBinary,
    Table,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, ColumnElement
from sqlalchemy.types import NullType, TypeEngine

DIALECTS: Mapping[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.psycopg.dialect(),  # type: ignore[no-untyped-call]
}


class among(ColumnElement[Any]):  # noqa: N801 - reads as a function in a statement
    """`column IN (all values of one list parameter)`, so that the text does not depend on how many there are."""

    inherit_cache = False
    #: No Boolean: SQLite would get `= 1` behind it, and that keeps the index out.
    type = NullType()

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        self.bind: BindParameter[Any] = BindParameter(name, required=True)


@compiles(among, "sqlite")
def _among_sqlite(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, bind = (compiler.process(part, **options) for part in (element.column, element.bind))
    return f"{column} IN (SELECT value FROM json_each({bind}))"  # noqa: S608 - both come from the compiler


@compiles(among, "postgresql")
def _among_postgresql(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, bind = (compiler.process(part, **options) for part in (element.column, element.bind))
    return f"{column} = ANY({bind})"


#: A set of rows is cut into parameters of about this size: PostgreSQL takes at most 1 GB, and a few hundred
#: callbacks of 8 MiB are more than that, and more than our memory.
PARAMETER_BYTES = 16 * 1024 * 1024


class Statement:
    """A statement with its text for each database, made when it is first run there."""

    __slots__ = ("_clause", "_texts")

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._texts: dict[str, tuple[str, dict[str, Any]]] = {}

    def text(self, dialect: str) -> tuple[str, dict[str, Any]]:
        """This function will give the SQL and the values that are written into the statement itself."""
        known = self._texts.get(dialect)
        if known is None:
            compiled = self._clause.compile(
                dialect=DIALECTS[dialect], compile_kwargs={"render_postcompile": True}
            )
            fixed = {name: value for name, value in compiled.params.items() if value is not None}
            known = self._texts[dialect] = (str(compiled), fixed)
        return known


Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def rows_of(columns: Mapping[str, TypeEngine[Any]]) -> Any:
    """This function will make PostgreSQL's table of the rows in one JSON parameter; bytes travel as hex text."""
    shown = [
        column(name, Text() if isinstance(kind, LargeBinary) else kind) for name, kind in columns.items()
    ]
    made = func.json_to_recordset(cast(bindparam("rows", type_=Text()), JSON)).table_valued(*shown)
    return made.render_derived(name="r", with_types=True)


def _value(rows: Any, name: str, kind: TypeEngine[Any]) -> Any:
    return func.decode(rows.c[name], "hex") if isinstance(kind, LargeBinary) else rows.c[name]


class Many:
    """A statement for a whole set of rows, made once for each database.

    SQLite runs the plain form row by row in the driver. PostgreSQL gets all rows as one JSON parameter: one round
    trip and one execution, however many rows there are.
    """

    __slots__ = ("_binary", "or_fail", "plain", "set_based")

    def __init__(
        self,
        plain: ClauseElement,
        set_based: ClauseElement,
        binary: Sequence[str] = (),
        *,
        or_fail: ClauseElement | None = None,
    ) -> None:
        self.plain = Statement(plain)
        self.set_based = Statement(set_based)
        #: The set-based form that divides by zero unless each row touched one.
        self.or_fail = None if or_fail is None else Statement(or_fail)
        self._binary = tuple(binary)

    def as_json(self, values: Rows) -> Iterator[str]:
        """This function will write rows as JSON parameters of the set-based form: one, unless they are large."""
        part: list[bytes] = []
        size = 0
        for row in values:
            shown = {**row, **{name: row[name].hex() for name in self._binary}} if self._binary else row
            text = orjson.dumps(shown)
            if part and size + len(text) > PARAMETER_BYTES:
                yield f"[{b','.join(part).decode()}]"
                part, size = [], 0
            part.append(text)
            size += len(text)
        yield f"[{b','.join(part).decode()}]"


def insert_many(
    table: Table,
    names: Sequence[str] | None = None,
    *,
    unless: Sequence[str] = (),
    instead: Sequence[str] = (),
) -> Many:
    """This function will make an insert of rows.

    `unless` names a key: rows that are there already are left as they are, or get the new values of the columns
    that `instead` names.
    """
    kinds = {name: table.c[name].type for name in (names or [column.name for column in table.c])}
    rows = rows_of(kinds)
    plain: Any = postgresql.insert(table).values({name: bindparam(name) for name in kinds})
    picked = select(*[_value(rows, name, kind) for name, kind in kinds.items()]).select_from(rows)
    several: Any = postgresql.insert(table).from_select(list(kinds), picked, include_defaults=False)
    if instead:
        plain, several = (
            made.on_conflict_do_update(
                index_elements=list(unless), set_={name: made.excluded[name] for name in instead}
            )
            for made in (plain, several)
        )
    elif unless:
        plain = plain.on_conflict_do_nothing(index_elements=list(unless))
        several = several.on_conflict_do_nothing(index_elements=list(unless))
    return Many(plain, several, [name for name, kind in kinds.items() if isinstance(kind, LargeBinary)])


def update_many(
    table: Table, names: Sequence[str], *, where: Mapping[str, str], unless_null: Sequence[str] = ()
) -> Many:
    """This function will make an update of rows; `where` maps columns to the row members they must equal.

    Columns of `unless_null` keep what they hold where a row brings NULL for them.
    """
    kinds = {name: table.c[name].type for name in names}
    keys = {member: table.c[name].type for name, member in where.items()}
    rows = rows_of({**kinds, **keys})
    plain = update(table).where(*[table.c[name] == bindparam(member) for name, member in where.items()])
    several = update(table).where(*[table.c[name] == rows.c[member] for name, member in where.items()])

    def new(name: str, given: Any) -> Any:
        return func.coalesce(given, table.c[name]) if name in unless_null else given

    set_based = several.values({name: new(name, rows.c[name]) for name in names})
    changed = set_based.returning(literal_column("1")).cte("changed")
    wanted = func.json_array_length(cast(bindparam("rows", type_=Text()), JSON))
    all_of_them = cast(select(func.count()).select_from(changed).scalar_subquery() == wanted, Integer)
    return Many(
        plain.values({name: new(name, bindparam(name)) for name in names}),
        set_based,
        or_fail=select(literal_column("1").op("/")(all_of_them)),
    )


def delete_many(table: Table, *, where: Mapping[str, str]) -> Many:
    """This function will make a delete of rows; `where` maps columns to the row members they must equal."""
    rows = rows_of({member: table.c[name].type for name, member in where.items()})
    return Many(
        delete(table).where(*[table.c[name] == bindparam(member) for name, member in where.items()]),
        delete(table).where(*[table.c[name] == rows.c[member] for name, member in where.items()]),
    )


def for_sqlite(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """This function will turn list parameters into the JSON text that `json_each` reads."""
    if any(type(value) is list for value in values.values()):
        return {key: json.dumps(value) if type(value) is list else value for key, value in values.items()}
    return values
