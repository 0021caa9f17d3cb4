"""The home folder of a device: its keys, its certificate, its lock, and where its files lie.

::

    HOME/               0700
      device.key        CBOR [1, ed25519 seed, x25519 secret, user_id, name]
      certificate       CBOR [[op, signature], …]: proves the device to be the user's, without any database
      lock              held by the process that has the home open; its pid stands inside
      device.db         addresses, known peers, caches
      groups/           <64 hex>.db, one per group
      run.json, socket  of the running process

A home is only ever made by `create_home`: where a key is missing or unreadable, `open_home` says so and makes nothing.
Does not read the databases.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import nacl.bindings

from peers.config import ADDRESSES_MAX
from peers.errors import HomeError, ProtocolError, UsageError
from peers.model import clock, codec
from peers.model.ids import KEY_BYTES, DeviceId, GroupId, UserId, group_file_name
from peers.model.keys import SEED_BYTES, SigningKey
from peers.model.personal import found_user
from peers.model.trust import (
    Certificate,
    DeviceInfo,
    LocalIdentity,
    certificate_from_wire,
    certificate_to_wire,
    encode_device_info,
    shown_name,
    verify_certificate,
)
from peers.model.words import ENTROPY_BYTES, words_of
from peers.private_files import FolderLock, raise_os, read_private, refuse, sync_folder, write_new

KEY_FORMAT = 1
_GROUP_FILE = re.compile(r"[0-9a-f]{64}\.db")


class HomeFolder:
    """Where things lie in a home. Touches nothing, so it serves also while another process has the home open."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()

    @property
    def key_path(self) -> Path:
        return self.path / "device.key"

    @property
    def certificate_path(self) -> Path:
        return self.path / "certificate"

    @property
    def lock_path(self) -> Path:
        return self.path / "lock"

    @property
    def device_db_path(self) -> Path:
        return self.path / "device.db"

    @property
    def run_path(self) -> Path:
        """What a running process tells others: written and removed by it."""
        return self.path / "run.json"

    @property
    def socket_path(self) -> Path:
        return self.path / "socket"

    @property
    def groups_dir(self) -> Path:
        return self.path / "groups"

    def group_path(self, group: GroupId) -> Path:
        """The file of a group. Raises HomeError where a link of that name leads out of the home."""
        path = self.groups_dir / group_file_name(group)
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise HomeError(f"{path} is a link out of the home: move the file itself there", code="home_link")
        return path

    def group_ids(self) -> list[GroupId]:
        """The groups that have a file here, sorted."""
        names = (entry.name for entry in self.groups_dir.iterdir()) if self.groups_dir.is_dir() else ()
        return sorted(bytes.fromhex(name.removesuffix(".db")) for name in names if _GROUP_FILE.fullmatch(name))

    def has_keys(self) -> bool:
        """Whether a device was made here."""
        return os.path.lexists(self.key_path)


class Home(HomeFolder):
    """An open home: locked until `close`, its keys read and checked. Made by `create_home` and `open_home`."""

    def __init__(self, path: Path | str, lock: FolderLock) -> None:
        super().__init__(path)
        self._lock = lock
        self.device_key, self.box_secret, self.user, self.name = _read_key(self.key_path)
        self.certificate: Certificate = _read_certificate(self.certificate_path, self.user, self.device)

    @property
    def device(self) -> DeviceId:
        return self.device_key.public

    @property
    def personal_operations(self) -> Certificate:
        """(raw, signature) of the operations that the personal group begins with here, causes first."""
        return self.certificate

    def identity(self, addresses: Iterable[str] = (), rev: int = 0) -> LocalIdentity:
        """What handshakes show: DeviceInfo signed anew with the first 8 addresses. `rev` grows with every change."""
        info = DeviceInfo(
            user=self.user,
            device=self.device,
            box_public=nacl.bindings.crypto_scalarmult_base(self.box_secret),
            rev=rev,
            name=self.name,
            addresses=tuple(addresses)[:ADDRESSES_MAX],
        )
        raw, signature = encode_device_info(self.device_key, info)
        return LocalIdentity(
            self.user, self.device_key, self.box_secret, raw, signature, self.certificate, self.name
        )  # fmt: skip

    def close(self) -> None:
        """Let other processes open the home. A second close does nothing."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create_home(
    path: Path | str, *, name: str, random_bytes: Callable[[int], bytes], now_ms: Callable[[], int]
) -> tuple[Home, tuple[str, ...]]:
    """Make a user and his first device; returns the open home and the 24 words, which are kept nowhere.

    Raises:
        HomeError: something of a home is there already, or the folder is open to others.
        AlreadyRunning, DiskFull, UsageError: nothing was made.
    """
    shown = shown_name(name.strip())
    if not shown:
        raise UsageError("a device needs a name of 1 to 64 characters")
    folder = HomeFolder(path)
    _refuse_existing(folder)
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.path.parent)
    except OSError as error:
        raise_os(folder.path, error)
    _check_folder(folder.path)
    lock = FolderLock(folder.lock_path)
    try:
        _refuse_existing(folder)  # again, now that nobody else can be making it
        words = _write_keys(folder, shown, random_bytes, now_ms())
        return Home(folder.path, lock), words
    except BaseException:
        lock.release()
        raise


def open_home(path: Path | str) -> Home:
    """Open the home of an existing device.

    Raises:
        HomeError: what is wrong and what to do; nothing was changed.
        AlreadyRunning: another process has it open; the message has its pid.
    """
    folder = HomeFolder(path)
    _check_folder(folder.path)
    _check_one_key(folder)
    lock = FolderLock(folder.lock_path)
    try:
        return Home(folder.path, lock)
    except BaseException:
        lock.release()
        raise


def _write_keys(folder: HomeFolder, name: str, random_bytes: Callable[[int], bytes], now_ms: int) -> tuple[str, ...]:
    """Make root and device keys, and the files; the key file last, since a home exists from then on."""
    entropy = random_bytes(ENTROPY_BYTES)
    seed, box_secret = random_bytes(SEED_BYTES), random_bytes(KEY_BYTES)
    genesis, grant = found_user(SigningKey(entropy), SigningKey(seed), hlc=clock.pack(now_ms))
    certificate = certificate_to_wire((genesis.signed, grant.signed))
    try:
        folder.groups_dir.mkdir(mode=0o700, exist_ok=True)
        write_new(folder.certificate_path, codec.dumps(certificate))
        write_new(folder.key_path, codec.dumps([KEY_FORMAT, seed, box_secret, genesis.id, name]))
    except BaseException as error:
        folder.key_path.unlink(missing_ok=True)
        folder.certificate_path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise_os(folder.path, error)
        raise
    return words_of(entropy)


def _refuse_existing(folder: HomeFolder) -> None:
    if folder.has_keys():
        refuse("home_exists", f"{folder.path} is the home of a device already: choose another folder")
    for rest in (folder.certificate_path, folder.device_db_path):
        if os.path.lexists(rest):
            reason = "device.key is missing: put it back from a backup, or, if no data is here, delete the folder"
            refuse("home_key_missing", f"{rest} is there, but {reason}")
    if folder.group_ids():
        reason = "device.key is missing: put it back from a backup, or choose another folder"
        refuse("home_key_missing", f"{folder.groups_dir} has groups, but {reason}")


def _check_folder(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        refuse("home_missing", f"no home at {path}: make one with `peers --home {path} init`")
    except OSError as error:
        raise_os(path, error)
    if not stat.S_ISDIR(mode):
        refuse("home_not_folder", f"{path} is not a folder: choose another home")
    if mode & 0o077:
        refuse("home_mode", f"others may look into {path}: run `chmod 700 {path}`")


def _check_one_key(folder: HomeFolder) -> None:
    try:
        keys = sorted(entry.name for entry in folder.path.iterdir() if entry.name.endswith(".key"))
    except OSError as error:
        raise_os(folder.path, error)
    if len(keys) > 1:
        refuse("home_two_keys", f"{folder.path} has {len(keys)} key files ({', '.join(keys)}): leave only device.key")
    if keys != [folder.key_path.name]:
        reason = "device.key is missing: put it back from a backup, or make a new device in another folder"
        refuse("home_key_missing", f"{folder.path}: {reason}")


def _read_key(path: Path) -> tuple[SigningKey, bytes, UserId, str]:
    damaged = "put it back from a backup; a new device needs another folder"
    data = read_private(path)
    if not data:
        refuse("home_key_empty", f"{path} is empty: {damaged}")
    try:
        value = codec.loads(data)
    except codec.BadEncoding:
        value = None
    if isinstance(value, list) and value and type(value[0]) is int and value[0] > KEY_FORMAT:
        refuse("home_newer", f"{path} was made by a newer version of Peers: use that version")
    match value:
        case [1, bytes(seed), bytes(box_secret), bytes(user), str(name)] if (
            len(seed) == SEED_BYTES and len(box_secret) == len(user) == KEY_BYTES
        ):
            return SigningKey(seed), box_secret, user, name
    raise HomeError(f"{path} is damaged: {damaged}", code="home_key_damaged")


def _read_certificate(path: Path, user: UserId, device: DeviceId) -> Certificate:
    try:
        certificate = certificate_from_wire(codec.loads(read_private(path)))
        verify_certificate(certificate, user, device)
    except (codec.BadEncoding, ProtocolError) as error:
        refuse("home_certificate", f"{path} does not belong to device.key ({error}): put it back from a backup")
    return certificate
