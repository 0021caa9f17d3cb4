"""Every error that Peers raises, in one tree.

Each class has a stable ``code`` for programs and a one-line message for people: what, where, what to do.
Whether waiting can help is a class, not a flag: `RetryableError`.

    PeersError
    ├── RetryableError        the same call may succeed later
    │   ├── ConnectionLost      connection_lost      the other side went away in the middle
    │   ├── TimedOut            timed_out            no answer in time
    │   ├── DiskFull            disk_full            nothing was written; free some space
    │   ├── DatabaseLocked      db_locked            another program holds the file
    │   └── DialFailed          dial_failed          the address did not answer
    ├── UsageError            bad_usage            the caller asked for something that has no meaning
    │   ├── SqlRefused          sql_refused          a statement that replication cannot carry
    │   ├── SchemaRefused       schema_refused       a declaration that replication cannot carry
    │   ├── BadValue            bad_value            a value that no column may hold
    │   └── NotFound            not_found            no such group, table or row
    ├── NotAllowed            not_allowed          the user's role does not permit it
    ├── HomeError             home_*               the home folder or a key file is not as it must be
    │   └── AlreadyRunning      already_running      another process has this home open
    ├── DatabaseCorrupt       db_corrupt           the group's file cannot be read
    ├── RemoteError           (the peer's code)    the other side answered with an error
    ├── ProtocolError         (one of WireFault)   the other side broke the protocol: the connection ends
    ├── EntryRefused          (one of EntryFault)  an entry that must not be stored
    ├── OperationRefused      (one of EntryFault)  a control operation that must not be stored
    └── EntryHeld             (one of EntryFault)  an entry that cannot be stored yet
"""

from enum import StrEnum
from typing import ClassVar


class PeersError(Exception):
    """Base of all errors of Peers. `str(error)` is one line for a person; `error.code` is for programs."""

    code: str = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class RetryableError(PeersError):
    """The same call may succeed later without any change by the caller."""


class ConnectionLost(RetryableError):
    code = "connection_lost"


class TimedOut(RetryableError):
    code = "timed_out"


class DiskFull(RetryableError):
    code = "disk_full"


class DatabaseLocked(RetryableError):
    code = "db_locked"


class DialFailed(RetryableError):
    code = "dial_failed"


class UsageError(PeersError):
    code = "bad_usage"
    exit_code = 2


class SqlRefused(UsageError):
    code = "sql_refused"


class SchemaRefused(UsageError):
    code = "schema_refused"


class BadValue(UsageError):
    code = "bad_value"


class NotFound(UsageError):
    code = "not_found"


class NotAllowed(PeersError):
    code = "not_allowed"


class HomeError(PeersError):
    code = "home_error"


class AlreadyRunning(HomeError):
    code = "already_running"
    exit_code = 3


class NotRunning(HomeError):
    code = "not_running"
    exit_code = 3


class DatabaseCorrupt(PeersError):
    code = "db_corrupt"


class RemoteError(PeersError):
    """The other side answered a call with an error; `code` is the code that it sent."""


class WireFault(StrEnum):
    """The codes of `ProtocolError`: why a connection was ended."""

    BAD_FRAME = "bad_frame"
    BAD_ENCODING = "bad_encoding"
    BAD_KEY = "bad_key"
    BAD_IDENTITY = "bad_identity"
    BAD_REPLY = "bad_reply"
    TOO_LARGE = "too_large"
    PROTOCOL = "protocol"
    VERSION_MISMATCH = "version_mismatch"
    CLOCK_SKEW = "clock_skew"
    WRONG_PEER = "wrong_peer"
    SELF_CONNECTION = "self_connection"
    DEVICE_REVOKED = "device_revoked"
    NOT_TRUSTED = "not_trusted"
    TIMED_OUT = "timed_out"


class ProtocolError(PeersError):
    """The other side broke the protocol. This connection ends; nothing else does.

    `answer` is one last frame to send before the close; empty where the close must be bare.
    """

    def __init__(self, fault: WireFault, message: str, *, answer: bytes = b"") -> None:
        super().__init__(message, code=fault.value)
        self.fault = fault
        self.answer = answer


class EntryFault(StrEnum):
    """Why an entry was refused or held: one name per step of the ingest order (docs/PROTOCOL)."""

    BAD_ENCODING = "bad_encoding"
    TOO_LARGE = "too_large"
    NOT_AVAILABLE = "not_available"
    BAD_SIGNATURE = "bad_signature"
    GAP = "gap"
    FORK = "fork"
    MISSING_CONTROL = "missing_control"
    UNKNOWN_DEVICE = "unknown_device"
    NOT_ALLOWED = "not_allowed"
    CLOCK_ORDER = "clock_order"
    CLOCK_AHEAD = "clock_ahead"
    BAD_DIGEST = "bad_digest"
    BAD_VALUE = "bad_value"


class EntryRefused(PeersError):
    """The entry, and its log from there on, must not be stored."""

    def __init__(self, fault: EntryFault, message: str) -> None:
        super().__init__(message, code=fault.value)
        self.fault = fault


class OperationRefused(PeersError):
    """The control operation must not be stored."""

    def __init__(self, fault: EntryFault, message: str) -> None:
        super().__init__(message, code=fault.value)
        self.fault = fault


class EntryHeld(PeersError):
    """The entry cannot be stored yet; it is asked for again later."""

    def __init__(self, fault: EntryFault, message: str) -> None:
        super().__init__(message, code=fault.value)
        self.fault = fault
