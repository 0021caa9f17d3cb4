"""device.db: what belongs to this device alone and is never synced.

Addresses to keep dialling, peers met before, and the nonce of each group's file (a group file whose nonce differs was
restored or copied: it gets a new incarnation). One small file; every write is durable.
"""

from dataclasses import dataclass
from pathlib import Path

from peers.config import StoreConfig
from peers.model.ids import DeviceId, GroupId, UserId
from peers.store.database import Database

_TABLES = """
CREATE TABLE IF NOT EXISTS address(address TEXT PRIMARY KEY, added_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peer(
    device BLOB PRIMARY KEY, user BLOB NOT NULL, name TEXT NOT NULL, address TEXT NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, connections INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS group_nonce(group_id BLOB PRIMARY KEY, nonce BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class KnownPeer:
    """A device that was once connected and verified. `address` is what was dialled, or empty."""

    device: DeviceId
    user: UserId
    name: str
    address: str
    first_ms: int
    last_ms: int
    connections: int


class DeviceStore:
    """The device's own file. Inline and small: each call is one durable transaction or one indexed read."""

    def __init__(self, path: Path, config: StoreConfig) -> None:
        self._database = Database(path, config, create=True)
        with self._database.transaction(durable=True):
            for statement in _TABLES.split(";\n"):
                if statement.strip():
                    self._database.connection.execute(statement)

    def close(self) -> None:
        self._database.close()

    def remember_address(self, address: str, now_ms: int) -> None:
        """Keep dialling `address`, also after a restart."""
        self._write("INSERT OR IGNORE INTO address VALUES(?, ?)", (address, now_ms))

    def forget_address(self, address: str) -> bool:
        """Whether it was remembered."""
        known = address in self.addresses()
        self._write("DELETE FROM address WHERE address = ?", (address,))
        return known

    def addresses(self) -> list[str]:
        rows = self._database.connection.execute("SELECT address FROM address ORDER BY added_ms, address")
        return [str(row[0]) for row in rows]

    def saw_peer(self, device: DeviceId, user: UserId, name: str, address: str, now_ms: int) -> None:
        """Count one verified connection with a device."""
        self._write(
            "INSERT INTO peer VALUES(?1, ?2, ?3, ?4, ?5, ?5, 1) ON CONFLICT DO UPDATE SET user = ?2, name = ?3,"
            " address = CASE ?4 WHEN '' THEN address ELSE ?4 END, last_ms = ?5, connections = connections + 1",
            (device, user, name, address, now_ms),
        )

    def peers(self) -> list[KnownPeer]:
        """Every device that was ever connected, the latest first."""
        rows = self._database.connection.execute("SELECT * FROM peer ORDER BY last_ms DESC, device")
        return [KnownPeer(*row) for row in rows]

    def group_nonce(self, group: GroupId) -> bytes | None:
        row = self._database.connection.execute("SELECT nonce FROM group_nonce WHERE group_id = ?", (group,)).get
        return None if row is None else bytes(row)

    def set_group_nonce(self, group: GroupId, nonce: bytes) -> None:
        self._write("INSERT OR REPLACE INTO group_nonce VALUES(?, ?)", (group, nonce))

    def _write(self, sql: str, values: tuple[object, ...]) -> None:
        with self._database.transaction(durable=True):
            self._database.connection.execute(sql, values)
