"""A session: the two directions of an established connection, one AEAD per frame.

What it is for: `seal` a plain frame, `open` a received one, change the keys in time. The order of frames is part of
the cryptography (implicit counters), so a frame that is replayed, reordered, dropped or changed ends the session.

It may assume that frames of one direction are sealed and opened in the order in which they travel. It knows no clock
and no frame kinds: the rpc layer asks `rekey_due`, sends its `rekey` frame as the last one under the old key, calls
`send_rekey`, and calls `receive_rekey` after having opened the other side's.
It will not resynchronise: after one failure every later frame is refused.
"""

import hashlib
from collections.abc import Iterable

from peers.config import NetConfig
from peers.errors import ProtocolError, WireFault
from peers.wire.handshake_messages import RESET_BYTES, VERSION
from peers.wire.noise import TAG_BYTES, CipherState


def frame_digest(frame: bytes) -> bytes:
    """What a session remembers of each handshake frame, to name its repetition."""
    return hashlib.blake2b(frame, digest_size=16).digest()


class Session:
    """`seal` and `open` frames. `send` and `receive` are the two ciphers of a finished handshake."""

    def __init__(
        self, send: CipherState, receive: CipherState, *, config: NetConfig, handshake_frames: Iterable[bytes] = ()
    ) -> None:
        self._send = send
        self._receive = receive
        self._config = config
        self._handshake_digests = frozenset(frame_digest(frame) for frame in handshake_frames)
        self._failed = False
        self._sent_bytes = 0
        self._send_key_since: float | None = None

    def seal(self, plain: bytes) -> bytes:
        """The frame to send, `TAG_BYTES` longer than `plain`.

        Raises:
            ProtocolError: `too_large` above ``config.frame_bytes_max`` in all; our own mistake, nothing was used up.
        """
        if len(plain) + TAG_BYTES > self._config.frame_bytes_max:
            raise ProtocolError(WireFault.TOO_LARGE, f"{len(plain)} bytes do not fit a frame; split them")
        sealed = self._send.encrypt(b"", plain)
        self._sent_bytes += len(plain)
        return sealed

    def open(self, frame: bytes) -> bytes:
        """The plain bytes of the other side's next frame.

        Raises:
            ProtocolError: `bad_frame` for anything but that frame; `too_large` for an oversized one; `protocol` for
                a handshake frame that comes again. The session then opens nothing more.
        """
        if self._failed:
            raise ProtocolError(WireFault.PROTOCOL, "a frame after the session had failed")
        self._failed = True
        if len(frame) < TAG_BYTES:
            raise ProtocolError(WireFault.BAD_FRAME, f"a frame of {len(frame)} bytes is shorter than its tag")
        if len(frame) > self._config.frame_bytes_max:
            raise ProtocolError(WireFault.TOO_LARGE, f"a frame of {len(frame)} bytes")
        try:
            plain = self._receive.decrypt(b"", frame)
        except ProtocolError as error:
            if self._is_handshake_frame(frame):
                raise ProtocolError(WireFault.PROTOCOL, "a handshake message on a verified connection") from error
            raise
        self._failed = False
        return plain

    def rekey_due(self, now_seconds: float) -> bool:
        """Whether our sending key has served its bytes or its time. The first call starts its time."""
        if self._send_key_since is None:
            self._send_key_since = now_seconds
        return (
            self._sent_bytes >= self._config.rekey_bytes
            or now_seconds - self._send_key_since >= self._config.rekey_seconds
        )

    def send_rekey(self) -> None:
        """Change the sending key. The `rekey` frame was the last one sealed under the old key."""
        self._send.rekey()
        self._sent_bytes = 0
        self._send_key_since = None

    def receive_rekey(self) -> None:
        """Change the receiving key. The other side's `rekey` frame was the last one opened under the old key."""
        self._receive.rekey()

    def _is_handshake_frame(self, frame: bytes) -> bool:
        """Only names the fault of a frame that is refused anyway."""
        is_reset = len(frame) == RESET_BYTES and frame[0] == VERSION
        return is_reset or frame_digest(frame) in self._handshake_digests
