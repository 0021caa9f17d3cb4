"""What a group's file knows of itself: format, group, nonce, this copy's incarnation, what of it was published."""

import apsw

from peers.errors import DatabaseCorrupt, PeersError

FORMAT = 1
DDL = ("CREATE TABLE _peers_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",)


class Meta:
    """Key and value pairs, held in memory."""

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._values: dict[str, object] = {}

    def create(self, *, group: bytes, nonce: bytes, incarnation: bytes) -> None:
        for statement in DDL:
            self._connection.execute(statement)
        self._set("format", FORMAT)
        self._set("group", group)
        self._set("nonce", nonce)
        self._set("incarnation", incarnation)
        self._set("published", 0)

    def load(self) -> None:
        """Raises DatabaseCorrupt where this is no group's file, PeersError where a newer program has made it."""
        if self._connection.execute("SELECT 1 FROM sqlite_schema WHERE name='_peers_meta'").fetchone() is None:
            raise DatabaseCorrupt(f"{self._path}: not a group's file; restore it or remove it")
        rows = self._connection.execute("SELECT key, value FROM _peers_meta")
        self._values = {str(key): value for key, value in rows}
        if self._values.get("format") != FORMAT:
            raise PeersError(f"{self._path}: made by a newer version of Peers; update this program")

    def _set(self, key: str, value: bytes | int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO _peers_meta VALUES(?,?)", (key, value))
        self._values[key] = value

    def _bytes(self, key: str) -> bytes:
        value = self._values[key]
        assert isinstance(value, bytes)
        return value

    @property
    def group(self) -> bytes:
        return self._bytes("group")

    @property
    def nonce(self) -> bytes:
        return self._bytes("nonce")

    def set_nonce(self, nonce: bytes) -> None:
        self._set("nonce", nonce)

    @property
    def incarnation(self) -> bytes:
        return self._bytes("incarnation")

    def set_incarnation(self, incarnation: bytes) -> None:
        """A new log: nothing of it is published yet."""
        self._set("incarnation", incarnation)
        self._set("published", 0)

    @property
    def published(self) -> int:
        """The last seq of the own log that may have been sent to anybody."""
        value = self._values["published"]
        assert isinstance(value, int)
        return value

    def set_published(self, seq: int) -> None:
        self._set("published", seq)

    def note(self, key: str, text: str) -> None:
        """Something for people who look into the file."""
        self._connection.execute("INSERT OR REPLACE INTO _peers_meta VALUES(?,?)", (f"note {key}", text))
