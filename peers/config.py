"""Every limit and delay in the system, frozen, each with its reason.

Two kinds. *Format limits* are part of the protocol: a replica that used another number would disagree with the rest,
so they are constants. *Settings* are this device's own choice: fields of `Config`, an argument of `open_device`.
Units stand last in the names.
"""

from dataclasses import dataclass, field
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- Format limits: the same on every device -------------------------------------------------------------------------

VALUE_BYTES_MAX: Final = 256 * KIB
"""One TEXT or BLOB value. Larger things are attachments; a row must fit a leaf several times over."""
LEAVES_MAX: Final = 64
"""Leaves of an entry: local leaf numbers are 6 bits beside the entry's number."""
ROWS_MAX: Final = 65_535
"""Rows of an entry, over all its leaves: ordinals and counts stay 16 bits."""
ENTRY_BYTES_MAX: Final = 1 * MIB
"""Compressed leaves of an entry together: a page of exchange holds at least one, a reassembly at least eight."""
LEAF_BYTES_MAX: Final = 4 * MIB
"""A leaf when decompressed, declared in its zstd frame: bounds what one leaf can make a receiver allocate."""
HEADER_BYTES_MAX: Final = 1 * MIB
"""An entry's header: about 12,000 deps, far more logs than a group has."""
TRANSACTION_BYTES_MAX: Final = 256 * MIB
"""A transaction that spans entries: parked in the log until complete, so it is bounded by disk, not memory."""
OPERATION_BYTES_MAX: Final = 64 * KIB
"""A control operation with what it encloses: a table of 500 columns or a chain of 100 device grants."""
CERTIFICATE_BYTES_MAX: Final = 4 * KIB
"""A device's certificate: a chain of a dozen grants, and it fits a handshake frame beside the rest."""
ADDRESSES_MAX: Final = 8
"""Addresses that a device may advertise: bounds what one peer can make others dial."""
NAME_CHARS_MAX: Final = 64
"""Names of tables, columns, groups and devices: what a person can read."""
COLUMNS_MAX: Final = 500
"""Columns of a table: below SQLite's 2,000 also for the side table, which has one for each."""
CLOCK_AHEAD_MAX_MS: Final = 5 * 60 * 1000
"""How far an entry may be ahead of the receiver's clock: the requirement's ±5 minutes. Beyond it is held."""


# --- Settings: this device's own -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """One group's file and its writer."""

    page_size_bytes: int = 8192
    """Measured: fewest page splits for rows of 100–160 bytes; checkpoint stalls half of those at 4096."""
    wal_autocheckpoint_pages: int = 4000
    """Measured: 157 ms against 217 ms for 100k rows, worst commit 5.6 ms against 16 ms."""
    cache_kib: int = 16 * KIB
    """Page cache of an open group. Of 64 MiB the gain was within noise."""
    busy_timeout_ms: int = 5000
    """Another program's short write is waited for; a longer one is reported as `db_locked`."""
    step_rows: int = 1000
    """Rows between two checkpoints of the event loop: about 2 ms."""
    hash_step_bytes: int = 2 * MIB
    """The same for the state hash of large rows: hashing these takes about 5 ms."""
    transactions_per_entry: int = 256
    """User transactions in one group commit: beyond it the signature and the sync are shared enough."""
    import_rows: int = 2000
    """Rows of one commit of `import`. Measured: 5,000 gain 5 % and hold the event loop twice as long."""
    writer_queue: int = 1024
    """Messages that may wait for the table writer: four full group commits. Then callers wait."""
    ingest_entries: int = 256
    """Entries of others in one SQLite transaction."""
    parked_after_seconds: float = 60.0
    """An entry that waits only for a dep is applied anyway after this much contact (docs/PROTOCOL, parked)."""
    feed_queue: int = 64
    """Commit notices a slow subscriber may lag; then they are merged into one."""


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """Transports, handshakes, sessions and rpc."""

    port: int = 3333
    """The requirement's default port."""
    path: str = "/peers"
    """The one path that the WebSocket listener serves and the dialer asks for."""
    frame_bytes: int = 64 * KIB
    """Plain bytes of one sealed frame: fastest on loopback, and every transport carries it."""
    frame_bytes_max: int = 256 * KIB
    """Largest frame accepted from a transport: the WebRTC limit."""
    receive_buffer_bytes: int = 256 * KIB
    """trio-websocket's default of 4 KiB costs two thirds of the throughput."""
    websocket_queue: int = 16
    """Frames read ahead; with 1, two unread frames stop pongs."""
    reset_bytes_max: int = 1 * KIB
    """First handshake frame: 33 bytes, with room for a later version's."""
    handshake_bytes_max: int = 8 * KIB
    """Later handshake frames: DeviceInfo, a certificate of 4 KiB, signatures."""
    handshake_seconds: float = 5.0
    """The whole handshake: three messages and a few signatures, also over a slow mobile link."""
    clock_skew_max_ms: int = 5 * 60 * 1000
    """Difference of the clocks of two devices that may talk: the requirement's ±5 minutes."""
    unauthenticated_max: int = 32
    """Sockets in handshake at once: 32 × 5 s bounds what strangers can hold."""
    unauthenticated_known: int = 8
    """More of them, only for hosts from which a peer was verified before: a flood does not lock members out."""
    unauthenticated_per_subnet: int = 4
    """Of them from one /24 (IPv4) or /64 (IPv6): one host or household cannot take all. Loopback is exempt."""
    accepts_per_second: float = 10.0
    """New sockets from strangers, as a token bucket of `unauthenticated_max`. Loopback is exempt."""
    known_hosts_max: int = 256
    """Hosts remembered as having been verified: eight times the pool."""
    message_bytes_max: int = 16 * MIB
    """One reassembled message: a page of exchange is at most 2 MiB."""
    assemblies_max: int = 4
    """Messages in reassembly at once on a connection."""
    assembly_bytes_max: int = 32 * MIB
    """Bytes in reassembly on a connection."""
    process_assembly_bytes_max: int = 256 * MIB
    """Bytes in reassembly over all connections: eight that are as full as they may be."""
    assembly_idle_seconds: float = 30.0
    """A reassembly that gets no chunk for this long is dropped."""
    calls_max: int = 64
    """Calls of the peer served at once; more are back-pressured by not reading. Also our own limit of open calls."""
    inbound_bytes_max: int = 32 * MIB
    """Messages of the peer in hand or waiting for it; beyond it nothing is read: a page is at most 2 MiB."""
    pongs_waiting_max: int = 16
    """Pings that wait for their answer to be sent: an honest peer has at most three on the way."""
    call_seconds: float = 30.0
    """Answer to a call, unless the caller says otherwise."""
    send_seconds: float = 30.0
    """A peer that reads nothing for this long is gone."""
    send_queue: int = 64
    """Messages waiting for the connection's writer."""
    send_queue_bytes: int = 4 * MIB
    """Bytes of them: two pages of exchange fill the line; answers beyond are made when there is room."""
    goodbye_seconds: float = 1.0
    """For the last frame and the transport's own close: a peer that is gone must not hold up a stop."""
    ping_seconds: float = 15.0
    """The requirement's ping interval."""
    pings_missed_max: int = 3
    """Misses that drop the connection."""
    rekey_bytes: int = 1024 * MIB
    """Noise REKEY per direction after so many bytes …"""
    rekey_seconds: float = 3600.0
    """… or so much time."""
    dial_seconds: float = 10.0
    """One attempt at an address."""
    dial_backoff_first_seconds: float = 0.5
    """Wait after the first failure; doubles, with jitter."""
    dial_backoff_max_seconds: float = 300.0
    """The requirement's 5 minutes."""
    dial_steady_seconds: float = 60.0
    """A connection that lived this long was good: the next backoff starts from the beginning."""
    clock_skew_retry_seconds: float = 60.0
    """A peer whose clock is off is no enemy: try again after a minute."""
    connections_max: int = 30
    """The requirement's pool."""


@dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """Exchange of entries."""

    page_bytes: int = 1 * MIB
    """Bytes of entries in one answer of list_changes (at least one entry)."""
    pages_in_flight: int = 2
    """One is applied while the next travels."""
    pull_turn_seconds: float = 5.0
    """How long a pull waits for another of the same group: a page on most links. Then something may come twice."""
    push_bytes_max: int = 1 * MIB
    """A backlog beyond this is announced by its heads and pulled."""
    hint_window_seconds: float = 0.1
    """The requirement's 100 ms: coalesces hints; the first push never waits."""
    digest_seconds: float = 60.0
    """The requirement's full resync each minute, as a comparison of digests."""
    retry_seconds: float = 5.0
    """After a pull that ended in an error other than a lost connection."""


@dataclass(frozen=True, kw_only=True)
class ActorConfig:
    """Mailboxes and supervision."""

    mailbox: int = 256
    """Messages that may wait for an actor; then the sender waits."""
    restarts_max: int = 5
    """Restarts within the window, then the failure goes upward."""
    restart_window_seconds: float = 60.0
    restart_backoff_first_seconds: float = 0.1
    restart_backoff_max_seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a device. `Config()` is the default; change with `dataclasses.replace`."""

    store: StoreConfig = field(default_factory=StoreConfig)
    net: NetConfig = field(default_factory=NetConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    actors: ActorConfig = field(default_factory=ActorConfig)
