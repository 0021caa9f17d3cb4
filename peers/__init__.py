"""Peers: an embedded, local-first SQL database whose groups sync directly between people's devices.

::

    async with peers.open_device(home) as device:
        group = await device.create_group("team")
        await group.create_table("CREATE TABLE trades(symbol TEXT, qty INTEGER)")
        await group.execute("INSERT INTO trades(symbol, qty) VALUES('ACME', 100)")

This is the front door: programs import from here, and nothing inside Peers does.
"""

from peers.config import Config, NetConfig, StoreConfig, SyncConfig
from peers.device import Device, create_device, open_device
from peers.errors import PeersError, RetryableError, UsageError
from peers.group import Group
from peers.model.membership import Role
from peers.store.live_query import LiveQuery
from peers.store.table import Table
from peers.store.transaction import Transaction
from peers.sync.connection_events import ConnectionEvent, ConnectionEventKind

__all__ = [
    "Config",
    "ConnectionEvent",
    "ConnectionEventKind",
    "Device",
    "Group",
    "LiveQuery",
    "NetConfig",
    "PeersError",
    "RetryableError",
    "Role",
    "StoreConfig",
    "SyncConfig",
    "Table",
    "Transaction",
    "UsageError",
    "create_device",
    "open_device",
]
