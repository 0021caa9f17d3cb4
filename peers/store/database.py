"""One SQLite file: opening it as it must be, transactions, and SQLite's errors in our words.

May assume that one thread uses it and that one process writes it (the home's lock); other programs may read and write
the user's tables between our transactions. Knows nothing of tables or entries. Everything is synchronous and inline.

Traps that are handled here: triggers that another program left in the file do not fire on our connection;
`trusted_schema` is off, so functions in defaults must be innocuous; `defensive` keeps SQL from corrupting the file.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import apsw

from peers.config import StoreConfig
from peers.errors import DatabaseCorrupt, DatabaseLocked, DiskFull, PeersError

SQLITE_VERSION_MIN = 3051003
"""3.51.3: earlier libraries can lose a WAL checkpoint race."""
MEMORY = ":memory:"
_STATEMENT_CACHE = 200
_SIGNALS_STEPS = 1_000_000
"""Steps of SQLite's machine, about 10 ms, after which Python may run: signal handlers do so between bytecodes only."""


class Database:
    """The writer's connection of one file, and readers beside it.

    Raises:
        DatabaseCorrupt: the file is no database, or is damaged.
        DatabaseLocked: another program holds it for longer than the busy timeout.
        DiskFull: there is no room to create it.
    """

    def __init__(self, path: Path | str, config: StoreConfig, *, create: bool) -> None:
        if apsw.sqlite3_sourceid() and apsw.SQLITE_VERSION_NUMBER < SQLITE_VERSION_MIN:
            raise PeersError(f"SQLite {apsw.sqlite_lib_version()} is too old: 3.51.3 or newer is needed")
        self.path = str(path)
        self.config = config
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
        with self.errors():
            self.connection = apsw.Connection(self.path, flags=flags, statementcachesize=_STATEMENT_CACHE)
        try:
            with self.errors():
                self._prepare(self.connection, create=create)
        except BaseException:
            self.connection.close(True)
            raise
        self._synchronous_full = False
        self._readers: list[apsw.Connection] = []
        self.on_begin: Callable[[], None] | None = None
        self.on_rollback: Callable[[], None] | None = None
        """Called after a transaction was rolled back: whoever keeps parts of the file in memory reads them anew."""

    def _prepare(self, connection: apsw.Connection, *, create: bool) -> None:
        config = self.config
        connection.set_busy_timeout(config.busy_timeout_ms)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        if create:
            connection.execute(f"PRAGMA page_size={config.page_size_bytes}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={config.wal_autocheckpoint_pages}")
        connection.execute(f"PRAGMA cache_size=-{config.cache_kib}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.set_progress_handler(_let_signals_in, _SIGNALS_STEPS)

    def reader(self) -> apsw.Connection:
        """A second connection that only reads (`query_only`); the caller's to use, closed with the database."""
        with self.errors():
            connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE)
            connection.set_busy_timeout(self.config.busy_timeout_ms)
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            connection.execute("PRAGMA query_only=ON")
            connection.set_progress_handler(_let_signals_in, _SIGNALS_STEPS)
        self._readers.append(connection)
        return connection

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """A connection for this block alone, on which all is as it is committed now, whatever is committed meanwhile.

        As long as it is open, the WAL cannot shrink. A database in memory has one connection only: no snapshot.
        """
        if self.path == MEMORY:
            yield self.connection
            return
        connection = self.reader()
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # the snapshot is that of a first read
            yield connection
        finally:
            if connection in self._readers:
                self._readers.remove(connection)
            connection.close(True)

    def version(self) -> int | None:
        """A number that is another after every commit, anybody's; None for a database in memory."""
        if self.path == MEMORY:
            return None
        number: int = self.shared_reader.execute("PRAGMA data_version").get
        return number

    @cached_property
    def shared_reader(self) -> apsw.Connection:
        """The reader of all live queries: it sees what is committed, never half a merge."""
        return self.reader()

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[apsw.Connection]:
        """One IMMEDIATE transaction: committed at the end of the block, rolled back if the block raises.

        Where `durable`, the commit returns only when the data would survive power loss (synchronous=FULL).
        """
        connection = self.connection
        with self.errors():
            if durable != self._synchronous_full:
                connection.execute("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
                self._synchronous_full = durable
            if self.on_begin is not None:
                self.on_begin()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if self.on_rollback is not None:
                    self.on_rollback()
                raise

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns SQLite's errors about the file, the disk and locks into ours; others pass as they are."""
        try:
            yield
        except apsw.FullError as error:
            raise DiskFull(f"{self.path}: the disk is full; free some space, nothing was written") from error
        except apsw.IOError as error:
            if getattr(error, "extendedresult", 0) != apsw.SQLITE_IOERR_SHMSIZE:  # not in the library's types
                raise
            raise DiskFull(f"{self.path}: no room for the -shm file; free some space, nothing was written") from error
        except (apsw.BusyError, apsw.LockedError) as error:
            raise DatabaseLocked(f"{self.path}: another program holds the file; close it or try again") from error
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise DatabaseCorrupt(f"{self.path}: the file is damaged ({error}); restore or repair it") from error
        except apsw.CantOpenError as error:
            raise DatabaseCorrupt(f"{self.path}: the file cannot be opened ({error})") from error

    def close(self) -> None:
        """Idempotent. Without force: a cursor still in use is a bug, and SQLite would keep the file open."""
        for connection in self._readers:
            connection.close(True)
        self._readers.clear()
        self.connection.close(True)


def _let_signals_in() -> bool:
    """False: go on. A statement that runs long would else be deaf to Ctrl-C until it ends."""
    return False


def fetch_all(connection: apsw.Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """All rows of a query of our own, whose columns we know."""
    return connection.execute(sql, parameters).fetchall()


def fetch_one(connection: apsw.Connection, sql: str, parameters: Sequence[Any] = ()) -> Any:
    """The first row of a query of our own that has one; None otherwise."""
    return connection.execute(sql, parameters).fetchone()
