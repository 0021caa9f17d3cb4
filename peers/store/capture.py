"""The SQL door: runs one statement of a user's on the writer's connection and tells which rows it changed.

A preupdate hook is registered for the length of the statement only, so merges are never echoed. What the statement may
do is checked twice: its tokens here (several statements, verbs, OR ROLLBACK), and each access by an authorizer, which
is installed once and switched by a flag, because installing one expires every cached statement.

Assumes an open transaction and a savepoint of the caller's: after any error the caller rolls back to it, since a
failed statement still delivers events. Does not check the values: `blocks_of` returns them as SQLite stored them, and
the caller validates. Traps that shaped this file: docs/decisions, "The SQL door".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import apsw

from peers.errors import BadValue, PeersError, SqlRefused
from peers.model.entries import Action
from peers.model.schema import Value
from peers.store.blocks import Block
from peers.store.door_table import DoorTable, Key
from peers.store.sql_tokens import one_statement

Parameters = Sequence[Any] | Mapping[str, Any]
Event = tuple[str, str, Any, Any]
"""(INSERT | UPDATE | DELETE, table, old row or None, new row or changed cells or None)."""

_WRITE_PREFIX: Final = "/*peers write*/"
"""Own entries in the statement cache. A text that was compiled while the hook was off may hold the truncate
optimisation (DELETE without WHERE, and no events at all), or may never have met the authorizer."""
_READ_PREFIX: Final = "/*peers read*/"

_READING = ("SELECT", "WITH", "VALUES", "EXPLAIN")
_WRITING = ("INSERT", "UPDATE", "DELETE", "REPLACE")
_REFUSED_VERBS = {
    "CREATE": "tables are declared with create_table; nothing else can be created",
    "ALTER": "columns are added with add_column; nothing else can be altered",
    "DROP": "tables are replicated and cannot be dropped; delete their rows",
    **dict.fromkeys(
        ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"),
        "transactions are functions: pass one to transact",
    ),
    "PRAGMA": "the settings of the file belong to Peers",
    **dict.fromkeys(("ATTACH", "DETACH"), "a group is one file"),
    **dict.fromkeys(("VACUUM", "REINDEX", "ANALYZE"), "maintenance is done by Peers"),
}
_ACTIONS = {
    apsw.SQLITE_INSERT: "insert into",
    apsw.SQLITE_UPDATE: "update",
    apsw.SQLITE_DELETE: "delete from",
}
_READ_ACTIONS = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})


@dataclass(frozen=True)
class Rows:
    """What a query found."""

    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]

    def __iter__(self) -> Iterator[tuple[Value, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def mappings(self) -> list[dict[str, Value]]:
        """The rows by the names of their columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Result:
    """What a statement did. `rows` is what RETURNING or a SELECT gave."""

    rows_changed: int
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()


@lru_cache(maxsize=256)
def check_statement(sql: str, writing: bool) -> None:
    """Raises SqlRefused for what the tokens alone give away."""
    tokens = one_statement(sql)
    verb = tokens[0].text.upper()
    if reason := _REFUSED_VERBS.get(verb):
        raise SqlRefused(f"{verb} is refused here: {reason}")
    if verb not in _READING and not (writing and verb in _WRITING):
        expected = "a SELECT" if not writing else "SELECT, INSERT, UPDATE, DELETE or REPLACE"
        raise SqlRefused(f"SQL: expected {expected}, not {tokens[0].text[:40]!r}")
    for first, second in pairwise(tokens):
        if first.is_word("OR") and second.is_word("ROLLBACK", "FAIL"):
            word = second.text.upper()
            raise SqlRefused(f"OR {word} is refused: it would end or split the group commit; use OR ABORT or OR IGNORE")


class Guard:
    """The authorizer of one connection. Off, it lets everything pass: the core's own statements."""

    def __init__(self, connection: apsw.Connection, tables: Callable[[], Mapping[str, DoorTable]]) -> None:
        self._tables = tables
        self._on = False
        self._writing = False
        self.refusal: str | None = None
        self.read: set[str] = set()
        """Tables that statements compiled since `begin` would read."""
        connection.authorizer = self._authorize

    @staticmethod
    def of(connection: apsw.Connection, tables: Callable[[], Mapping[str, DoorTable]]) -> "Guard":
        """The connection's guard: a second authorizer would put the first one out of force."""
        installed = getattr(connection.authorizer, "__self__", None)
        return installed if isinstance(installed, Guard) else Guard(connection, tables)

    def begin(self, *, writing: bool) -> None:
        """From here to `end` statements are the user's."""
        self._tables()  # whatever this must ask of the file is asked before the guard is on
        self._on, self._writing, self.refusal, self.read = True, writing, None, set()

    def end(self) -> None:
        self._on = False

    def _authorize(self, action: int, one: str | None, two: str | None, database: str | None, _: str | None) -> int:
        if not self._on:
            return apsw.SQLITE_OK
        if action in _READ_ACTIONS:
            if action == apsw.SQLITE_READ and one is not None:
                self.read.add(one)
            return apsw.SQLITE_OK
        if action in _ACTIONS:
            if self._writing and database == "main" and one is not None and one.lower() in self._tables():
                return apsw.SQLITE_OK
            self.refusal = self._why_not(_ACTIONS[action], one or "")
        else:
            self.refusal = f"SQL: {_action_name(action)} is refused here"
        return apsw.SQLITE_DENY

    def _why_not(self, verb: str, table: str) -> str:
        if not self._writing:
            return f"{verb} {table}: a query reads only; use execute"
        if table.lower() == "groupmembers":
            return f"{verb} {table}: it shows the membership; use grant"
        if table.lower().startswith(("_peers_", "sqlite_")):
            return f"{verb} {table}: internal tables are written by Peers only"
        return f"{verb} {table}: it is not a declared table of this group; use create_table"


def _action_name(action: int) -> str:
    name = apsw.mapping_authorizer_function.get(action, action)
    return str(name).removeprefix("SQLITE_").replace("_", " ")


class SqlDoor:
    """Runs users' statements on one connection. `write` captures, `read` does not."""

    def __init__(self, connection: apsw.Connection, tables: Callable[[], Mapping[str, DoorTable]]) -> None:
        self._connection = connection
        self._tables = tables
        self._guard = Guard.of(connection, tables)
        self._columns: tuple[str, ...] = ()
        self._compile_only = False

    def read(self, sql: str, parameters: Parameters = ()) -> Rows:
        """Raises SqlRefused, BadValue."""
        check_statement(sql, False)
        rows = self._run(_READ_PREFIX + sql, parameters, writing=False)
        return Rows(self._columns, rows)

    def tables_of(self, sql: str, parameters: Parameters = ()) -> frozenset[str]:
        """The tables that a query reads, whatever it finds: compiled, not run. Raises SqlRefused."""
        check_statement(sql, False)
        self._compile_only = True
        try:
            self._run(_READ_PREFIX + sql, parameters, writing=False, can_cache=False)
        except apsw.ExecTraceAbort:
            pass
        finally:
            self._compile_only = False
        return frozenset(self._guard.read)

    def write(self, sql: str, parameters: Parameters = ()) -> tuple[Result, list[Block]]:
        """What the statement did, and the rows that it changed. The caller rolls back its savepoint on any error.

        Raises:
          SqlRefused: SQLite or Peers does not take the statement.
          BadValue: a constraint, or a value that cannot be stored.
        """
        check_statement(sql, True)
        _check_parameters(parameters)
        connection = self._connection
        events: list[Event] = []
        add = events.append

        def hook(update: apsw.PreUpdate) -> None:
            kind = update.op
            if kind == "INSERT":
                add((kind, update.table_name, None, update.new))
            elif kind == "UPDATE":
                add((kind, update.table_name, update.old, update.update))
            else:
                add((kind, update.table_name, update.old, None))

        before = connection.total_changes()
        connection.preupdate_hook(hook)
        try:
            rows = self._run(_WRITE_PREFIX + sql, parameters, writing=True)
        finally:
            connection.preupdate_hook(None)
        changed = connection.total_changes() - before
        return Result(changed, self._columns, tuple(rows)), list(blocks_of(events, self._tables()))

    def _run(self, sql: str, parameters: Parameters, *, writing: bool, can_cache: bool = True) -> list[Any]:
        """SQLite's complaints about the user's statement become ours; what befalls the file passes on."""
        cursor = self._connection.cursor()
        cursor.exec_trace = self._note_columns
        self._guard.begin(writing=writing)
        try:
            return cursor.execute(sql, parameters, can_cache=can_cache).fetchall()
        except apsw.AuthError as error:
            raise SqlRefused(self._guard.refusal or f"SQL: {error}") from None
        except (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
            raise BadValue(f"SQL: {error}") from None
        except (apsw.SQLError, apsw.BindingsError, apsw.ReadOnlyError, apsw.RangeError) as error:
            raise SqlRefused(f"SQL: {error}") from None
        except UnicodeError:
            raise BadValue("SQL: text that is not valid UTF-8") from None
        except OverflowError:
            raise BadValue("SQL: an integer beyond 64 bits") from None
        except TypeError as error:
            raise SqlRefused(f"SQL: {str(error).splitlines()[0]}") from None
        finally:
            self._guard.end()

    def _note_columns(self, cursor: apsw.Cursor, *_: Any) -> bool:
        self._columns = tuple([column[0] for column in cursor.get_description()])
        return not self._compile_only


def _check_parameters(parameters: Parameters) -> None:
    """SQLite would store NaN as NULL without a word."""
    values = parameters.values() if isinstance(parameters, Mapping) else parameters
    if any(type(value) is float and value != value for value in values):
        raise BadValue("SQL: NaN as a parameter; no column may hold it")


# --- Events ----------------------------------------------------------------------------------------------------------


def blocks_of(events: Sequence[Event], tables: Mapping[str, DoorTable]) -> Iterator[Block]:
    """The events as blocks: runs of one table, action and set of columns. A changed key is a delete and an insert."""
    start = 0
    while start < len(events):
        kind, name, _, _ = events[start]
        table = tables.get(name.lower())
        if table is None:
            raise PeersError(f"table {name} was changed, but is not declared")  # the authorizer has let it pass: a bug
        stop = start + 1
        while stop < len(events) and events[stop][0] == kind and events[stop][1] == name:
            stop += 1
        run = events[start:stop]
        if kind == "INSERT":
            yield _inserts(table, [event[3] for event in run])
        elif kind == "DELETE":
            yield _deletes(table, [event[2] for event in run])
        else:
            yield from _updates(table, run)
        start = stop


def _inserts(table: DoorTable, rows: list[Key]) -> Block:
    if len(rows) == 1:
        row = rows[0]
        return Block(table, Action.INSERT, table.all_places, [table.key_of(row)], [[row[at]] for at in table.value_at])
    columns = list(zip(*rows, strict=True))
    keys = list(zip(*[columns[at] for at in table.key_at], strict=True))
    return Block(table, Action.INSERT, table.all_places, keys, [list(columns[at]) for at in table.value_at])


def _deletes(table: DoorTable, rows: list[Key]) -> Block:
    return Block(table, Action.DELETE, (), [table.key_of(row) for row in rows], [], old_rows=table.declared_rows(rows))


def _updates(table: DoorTable, run: Sequence[Event]) -> Iterator[Block]:
    """One block per set of changed columns, where each row comes once and no key changes; else row by row."""
    unchanged = apsw.no_change
    columns = list(zip(*[cells for _, _, _, cells in run], strict=True))
    counts = [column.count(unchanged) for column in columns]
    keys: list[Key] = list(zip(*[[old[at] for _, _, old, _ in run] for at in table.key_at], strict=True))
    if any(counts[at] < len(run) for at in table.key_at) or len(set(keys)) < len(keys):
        for event in run:  # an UPSERT may come back to a row, a key may move to where another was
            yield from _update(table, event)
        return
    groups: dict[tuple[int, ...], Sequence[int]] = {}
    if all(count in (0, len(run)) for count in counts):
        groups[tuple(at for at, count in enumerate(counts) if count == 0)] = range(len(run))
    else:
        by_pattern: dict[tuple[int, ...], list[int]] = {}
        for index, (_, _, _, cells) in enumerate(run):
            changed = tuple([at for at, cell in enumerate(cells) if cell is not unchanged])
            by_pattern.setdefault(changed, []).append(index)
        groups.update(by_pattern)
    for changed_at, chosen in groups.items():
        if changed_at:
            places = sorted((table.place_of[at], at) for at in changed_at)
            values = [[columns[at][index] for index in chosen] for _, at in places]
            yield Block(
                table, Action.UPDATE, tuple(place for place, _ in places), [keys[index] for index in chosen], values
            )


def _update(table: DoorTable, event: Event) -> Iterator[Block]:
    """One row. Nothing where nothing has changed; a changed key is a delete and an insert."""
    _, _, old, cells = event
    unchanged = apsw.no_change
    if any(cells[at] is not unchanged for at in table.key_at):
        yield _deletes(table, [old])
        yield _inserts(table, [tuple(was if cell is unchanged else cell for was, cell in zip(old, cells, strict=True))])
        return
    places = sorted((table.place_of[at], at) for at, cell in enumerate(cells) if cell is not unchanged)
    if places:
        values = [[cells[at]] for _, at in places]
        yield Block(table, Action.UPDATE, tuple(place for place, _ in places), [table.key_of(old)], values)
