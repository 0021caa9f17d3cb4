"""The state hash of one group's file, from its tables (`model.state` has the bytes). On demand or when idle.

A whole pass over all rows, in steps, inside one read transaction of a connection of its own: whatever is committed
between steps, the result is that of one moment. Rows are read in the order of their keys, and beside them, in the same
order, their side rows and other maximal writes where they have any; so memory does not grow with the file. What the
rows of one entry share (stamps and columns) is a *plan*, made once.

May assume that the connection is used for nothing else. Nothing of the writer's memory is read after the start.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple
from zlib import crc32

import apsw
import cbor2

from peers.config import KIB, StoreConfig
from peers.model.ids import ROW_ID_CHARS, Hash
from peers.model.state import (
    BUCKETS,
    Cell,
    Place,
    Stamp,
    StateSums,
    array_head,
    bucket_of,
    encode_head,
    hashed_head,
    row_digest,
)
from peers.model.state import DELETED as DELETED_ID
from peers.store.catalog import Catalog
from peers.store.change_log import ChangeLog
from peers.store.database import Database
from peers.store.row_state import DIGITS, RowStore
from peers.store.rows import DELETED, EID_MASK, EPOCH_SHIFT, LocalTable, quote

_PLANS_MAX = 20_000
_PLAN_BYTES = 16 * KIB
"""Making a plan, or hashing a row in conflict, takes as long as hashing so many bytes: 20 to 40 µs."""
_TEXT_HEAD = b"\x78\x20"
"""What stands before a default id where it is encoded: a text of 32 bytes."""
_ID_CRC = crc32(b"\x81" + _TEXT_HEAD)
_dumps = cbor2.dumps


class _Plan(NamedTuple):
    """How rows of the same stamps are hashed."""

    begin: Callable[[], Any]
    """A new hash that holds the head."""
    pick: Callable[[tuple[Any, ...]], Any] | None
    """The row's values in the order of the body; None where they stand so already."""
    key_at: int
    """Where the encoded key's text begins in the body, if it is a default id."""


_UNKNOWN = _Plan(lambda: None, None, 0)


def _make_room(kept: dict[Any, Any]) -> None:
    if len(kept) >= _PLANS_MAX:
        kept.clear()


class _Beside:
    """Rows of a side table in the order of their keys. `key` is that of the next; equal to no key at the end."""

    def __init__(self, rows: Iterator[tuple[Any, ...]], key_of: Callable[[tuple[Any, ...]], Any]) -> None:
        self._rows = rows
        self._key_of = key_of
        self.key: Any = None
        self._advance()

    def _advance(self) -> None:
        self._next = next(self._rows, None)
        self.key = object() if self._next is None else self._key_of(self._next)

    def take(self) -> tuple[Any, ...]:
        row = self._next
        assert row is not None
        self._advance()
        return row

    @property
    def is_at_end(self) -> bool:
        return self._next is None


class StateHash:
    """The state hash of one file, kept until anybody changes the file."""

    def __init__(self, database: Database, catalog: Catalog, config: StoreConfig) -> None:
        self._database = database
        self._catalog = catalog
        self._config = config
        self._version: int | None = None
        self._known: Hash = b""

    @property
    def known(self) -> Hash | None:
        """What was computed since the last commit."""
        return self._known if self._version is not None and self._version == self._database.version() else None

    def steps(self) -> Generator[None, None, Hash]:
        """Compute it of what is committed now. Commits between the steps do not matter."""
        database, config = self._database, self._config
        with database.errors():
            version = database.version()
            with database.snapshot() as connection:
                hasher = StateHasher(connection, tuple(self._catalog.by_number.values()))
                for sums in hasher.sums(step=config.step_rows, step_bytes=config.hash_step_bytes):  # noqa: B007
                    yield
            result = sums.hash()
        self._version, self._known = version, result
        return result

    def now(self) -> Hash:
        """All steps at once."""
        known, steps = self.known, self.steps()
        while known is None:
            try:
                next(steps)
            except StopIteration as end:
                known = end.value
        return known


class StateHasher:
    """Computes the sums of a whole file, as `connection` sees it."""

    def __init__(self, connection: apsw.Connection, tables: Sequence[LocalTable]) -> None:
        self._connection = connection
        self._tables = tables
        self._log = ChangeLog(connection)
        self._log.load()

    def sums(self, *, step: int, step_bytes: int) -> Iterator[StateSums]:
        """Yields the same sums after at most `step` rows, and about `step_bytes`; complete at the end."""
        sums = StateSums()
        for table in self._tables:
            hasher = _TableHasher(self._connection, self._log, table, sums, step_bytes)
            yield from (sums for _ in hasher.run(step))
        yield sums


class _TableHasher:
    """Adds the rows of one table to the sums."""

    def __init__(
        self, connection: apsw.Connection, log: ChangeLog, table: LocalTable, sums: StateSums, step_bytes: int
    ) -> None:
        self._connection = connection
        self._log = log
        self._step_bytes = step_bytes
        self._room = step_bytes
        """What is left of a step's bytes but for the bodies that were hashed."""
        self._rows = RowStore(connection, log)
        self._table = table
        self._id = table.table.id
        self._size = table.key_size
        self._key_of = itemgetter(*range(self._size))
        self._numbers = sums.numbers(self._id)
        width = len(table.by_position)
        self._order = sorted(range(width), key=lambda at: table.by_position[at].id)
        """The value columns by their ids, as a row is read: after its key and `deleted`."""
        self._columns = [DELETED_ID, *(table.by_position[at].id for at in self._order)]
        self._row_places = {at: self._size + 1 + place for place, at in enumerate(self._order)}
        self._no_side: tuple[int | None, ...] = (None,) * (2 + width)
        self._plans: dict[tuple[int, tuple[int | None, ...]], _Plan | None] = {}
        self._bases: dict[str, int] = {}
        self._implied: dict[str, _Plan] = {}
        """By all of a default id but the ordinal, for rows that are as their id implies."""

    def run(self, step: int) -> Iterator[None]:
        """Yields after at most `step` rows."""
        table = self._table
        cells = [quote(table.by_position[at].name) for at in self._order]
        yield from self._run(table.sql_name, list(table.key_names), 0, cells, step)
        keys = [f"k{i}" for i in range(self._size)]
        yield from self._run(table.aside, keys, 1, [f"c{at}" for at in self._order], step)

    def _run(self, name: str, keys: list[str], deleted: int, cells: list[str], step: int) -> Iterator[None]:
        execute = self._connection.execute
        rows = execute(f"SELECT {', '.join([*keys, str(deleted), *cells])} FROM {name} ORDER BY {', '.join(keys)}")
        stamps = ["b", "d", *(f"c{at}" for at in range(len(cells)))]
        sides = self._beside(self._table.stamps, stamps, name, keys)
        losers = self._beside(self._table.losers, ["c", "s", "v"], name, keys)
        while self._add(islice(rows, step), sides, losers):
            yield
        assert sides.is_at_end and losers.is_at_end, f"{name}: side rows out of order"

    def _beside(self, side: str, columns: list[str], name: str, keys: list[str]) -> _Beside:
        """What `side` has of the rows that are in `name`. CROSS: so that they come in the order of the side table."""
        on = " AND ".join(f"u.{key}=s.k{i}" for i, key in enumerate(keys))
        side_keys = [f"s.k{i}" for i in range(self._size)]
        wanted = ", ".join([*side_keys, *(f"s.{column}" for column in columns)])
        text = f"SELECT {wanted} FROM {side} s CROSS JOIN {name} u ON {on} ORDER BY {', '.join(side_keys)}"
        return _Beside(iter(self._connection.execute(text)), self._key_of)

    def _add(self, rows: Iterator[tuple[Any, ...]], sides: _Beside, losers: _Beside) -> bool:
        """Adds rows, not all of them where they are large. Returns whether there was any."""
        key_of, numbers, implied, ordinal_in = self._key_of, self._numbers, self._implied, DIGITS.issuperset
        default_id = self._table.table.default_id
        plan: _Plan | None
        count, self._room = 0, self._step_bytes
        hashed = 0
        for count, row in enumerate(rows, 1):  # noqa: B007
            key = key_of(row)
            if key == sides.key or key == losers.key:
                side = sides.take()[self._size :] if key == sides.key else self._no_side
                if key == losers.key:
                    self._add_conflicts(row, key, side, losers)
                    if hashed >= self._room:
                        break
                    continue
                plan = self._plan(side[0] if side[0] is not None else self._base(key), side)
            elif default_id:
                plan = implied.get(key[:13] + key[19:])
                if plan is None or not ordinal_in(key[13:19]):
                    plan = self._implied_plan(key)
            else:
                continue  # of no retained write: another program's, not captured yet
            if plan is None:
                continue
            begin, pick, at = plan
            body = _dumps(row if pick is None else pick(row))
            digest = begin()
            digest.update(body)
            if default_id and len(key) == ROW_ID_CHARS and key.isascii():
                bucket = crc32(body[at : at + ROW_ID_CHARS], _ID_CRC) % BUCKETS
            else:
                bucket = bucket_of(row[: self._size])
            numbers[bucket] += int.from_bytes(digest.digest(), "big")
            hashed += len(body)
            if hashed >= self._room:
                break
        return count > 0

    def _add_conflicts(self, row: tuple[Any, ...], key: Any, side: tuple[int | None, ...], losers: _Beside) -> None:
        base = side[0] if side[0] is not None else self._base(key)
        winners = [Cell(place.column, place.stamp, row[at]) for place, at in self._places(base, side)]
        others = []
        while losers.key == key:
            at, stamp, value = losers.take()[self._size :]
            column = DELETED_ID if at == DELETED else self._table.by_position[at].id
            others.append(Cell(column, self._stamp(stamp), value))
        self._room -= _PLAN_BYTES
        digest = row_digest(self._id, row[: self._size], winners, others)
        self._numbers[digest.bucket] += digest.number

    # --- Plans -------------------------------------------------------------------------------------------------------

    def _base(self, key: Any) -> int:
        """The stamp that the key implies, or 0. The ids of one entry differ in their ordinal only."""
        if not self._table.table.default_id or len(key) != ROW_ID_CHARS or not DIGITS.issuperset(key[13:19]):
            return 0
        tag = key[:13] + key[19:]
        found = self._bases.get(tag)
        if found is None:
            _make_room(self._bases)
            found = self._bases[tag] = self._rows.implied_base(self._table, (key,))
        return found

    def _implied_plan(self, key: str) -> _Plan | None:
        base = self._base(key)
        plan = self._plan(base, self._no_side) if base else None
        if plan is not None:
            _make_room(self._implied)
            self._implied[key[:13] + key[19:]] = plan
        return plan

    def _plan(self, base: int, side: tuple[int | None, ...]) -> _Plan | None:
        """None for a row without cells."""
        found = self._plans.get((base, side), _UNKNOWN)
        if found is _UNKNOWN:
            _make_room(self._plans)
            found = self._plans[base, side] = self._make_plan(self._places(base, side))
        return found

    def _make_plan(self, places: list[tuple[Place, int]]) -> _Plan | None:
        self._room -= _PLAN_BYTES
        if not places:
            return None
        head = hashed_head(encode_head(self._id, [place for place, _ in places]))
        order = [*range(self._size), *(at for _, at in places)]
        in_order = order == list(range(self._size + 1 + len(self._order)))
        key_at = len(array_head(len(order))) + len(_TEXT_HEAD)
        return _Plan(head.copy, None if in_order else itemgetter(*order), key_at)

    def _places(self, base: int, side: tuple[int | None, ...]) -> list[tuple[Place, int]]:
        """The winning cells of a row of these stamps, sorted, and where their values stand in the row."""
        table, eid = self._table, base & EID_MASK
        if side == self._no_side and eid >= table.first_eid_max and base:  # usual: all of one stamp
            whole = self._stamp(base)
            return [(Place(whole, column), self._size + at) for at, column in enumerate(self._columns)]
        cells = [(DELETED_ID, base if side[1] is None else side[1], self._size)]
        for at, stamp in enumerate(side[2:]):
            if stamp is None:
                stamp = base if eid >= table.first_eids[at] else 0
            cells.append((table.by_position[at].id, stamp, self._row_places[at]))
        stamps = {stamp: self._stamp(stamp) for stamp in {stamp for _, stamp, _ in cells} if stamp}
        return sorted((Place(stamps[stamp], column), at) for column, stamp, at in cells if stamp)

    def _stamp(self, stamp: int) -> Stamp:
        return Stamp(stamp >> EPOCH_SHIFT, *self._log.info(stamp & EID_MASK).order)
