"""The home folder: S6, S10 and T39, on a real file system."""

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from peers.errors import AlreadyRunning, DiskFull, HomeError, UsageError
from peers.home import Home, HomeFolder, create_home, open_home
from peers.model import codec
from peers.model.ids import blake2b_256
from peers.model.keys import SigningKey
from peers.model.membership import Role, members
from peers.model.operation_graph import Operations
from peers.model.operations import decode_operation
from peers.model.trust import decode_device_info, verify_certificate
from peers.model.words import entropy_of

NOW = 1_700_000_000_000


def seeded(mark: str) -> Callable[[int], bytes]:
    """Bytes that look random and are the same every time."""
    count = iter(range(1000))
    return lambda size: blake2b_256(f"{mark} {next(count)}".encode())[:size]


def make(path: Path, mark: str = "a") -> tuple[Home, tuple[str, ...]]:
    return create_home(path, name="laptop", random_bytes=seeded(mark), now_ms=lambda: NOW)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A home that is made and closed."""
    make(tmp_path / "home")[0].close()
    return tmp_path / "home"


def names(path: Path) -> set[str]:
    return {item.name for item in path.iterdir()} - {"lock"} if path.is_dir() else set()


def refused(path: Path, code: str, *parts: str) -> None:
    """Opening is refused with one line that has the path and the parts, and makes nothing."""
    before = names(path)
    with pytest.raises(HomeError) as caught:
        open_home(path)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert "\n" not in message and all(part in message for part in (str(path), *parts))
    assert names(path) == before


def test_a_home_is_made_and_opened_again(tmp_path: Path) -> None:
    home, words = make(tmp_path / "deep" / "home")
    with home:
        user, device = home.user, home.device
    with open_home(str(home.path)) as again:
        assert (again.user, again.device, again.name) == (user, device, "laptop")
        assert again.box_secret == home.box_secret and again.certificate == home.certificate
    personal = Operations(decode_operation(*signed) for signed in again.personal_operations)
    assert personal.group == user
    root = SigningKey(entropy_of(" ".join(words)))
    assert members(personal) == {root.public: Role.OWNER, device: Role.ADMIN}
    assert [operation.hlc for operation in personal] == [0, NOW << 16]


def test_the_root_key_is_kept_nowhere(tmp_path: Path) -> None:
    home, words = make(tmp_path / "home")
    home.close()
    seed = entropy_of(" ".join(words))
    for item in home.path.rglob("*"):
        if item.is_file():
            assert seed not in item.read_bytes() and words[3].encode() not in item.read_bytes()


def test_an_identity_shows_its_addresses(path: Path) -> None:
    with open_home(path) as home:
        identity = home.identity([f"ws://10.0.0.{n}:3333" for n in range(9)], rev=4)
        info = decode_device_info(identity.info_raw, identity.info_signature)
        assert (info.user, info.device, info.rev, len(info.addresses)) == (home.user, home.device, 4, 8)
        verify_certificate(identity.certificate, info.user, info.device)
        assert decode_device_info(home.identity().info_raw, home.identity().info_signature).addresses == ()


def test_t39_folders_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path) -> None:
    """T39: dir 0700, file 0600."""
    before = os.umask(0)
    try:
        home, _ = make(tmp_path / "home")
    finally:
        os.umask(before)
    home.close()
    for item in (home.path, *home.path.iterdir()):
        assert stat.S_IMODE(item.stat().st_mode) == (0o700 if item.is_dir() else 0o600), item


def test_t39_s10_a_home_that_others_may_read_is_refused_with_the_chmod(path: Path) -> None:
    """T39: refuse to start if group/other-readable (print the chmod command). S10: wrong mode."""
    path.chmod(0o750)
    refused(path, "home_mode", f"chmod 700 {path}")
    path.chmod(0o700)
    for name in ("device.key", "certificate"):
        (path / name).chmod(0o640)
        refused(path, "home_mode", f"chmod 600 {path / name}")
        (path / name).chmod(0o600)
    open_home(path).close()
    (path.parent / "open").mkdir(mode=0o755)
    with pytest.raises(HomeError, match="chmod 700"):
        make(path.parent / "open")


def test_s10_a_missing_key_is_never_made_anew(path: Path) -> None:
    """S10: key file missing → refuse with exact reason; never generate a new identity silently."""
    (path / "device.key").unlink()
    refused(path, "home_key_missing", "device.key is missing", "backup")
    with pytest.raises(HomeError, match=r"certificate is there, but device\.key is missing"):
        make(path, "b")
    (path / "certificate").rename(path / "old")
    (path / "groups" / f"{'ab' * 32}.db").touch()
    with pytest.raises(HomeError, match="has groups"):
        make(path, "b")
    assert not (path / "device.key").exists()


def test_s10_a_missing_home_is_not_made(tmp_path: Path) -> None:
    refused(tmp_path / "none", "home_missing", "init")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "home_not_folder")


def test_s10_an_empty_key_is_refused(path: Path) -> None:
    """S10: key file empty."""
    (path / "device.key").write_bytes(b"")
    refused(path, "home_key_empty", "is empty")


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        codec.dumps([]),
        codec.dumps([1, b"short", bytes(32), bytes(32), "x"]),
        codec.dumps([0]),
        codec.dumps(7),
    ],
)
def test_s10_a_damaged_key_is_refused(path: Path, data: bytes) -> None:
    """S10: key file damaged."""
    (path / "device.key").write_bytes(data)
    refused(path, "home_key_damaged", "is damaged")


def test_s10_a_key_of_a_newer_version_is_refused(path: Path) -> None:
    (path / "device.key").write_bytes(codec.dumps([2, b"sealed"]))
    refused(path, "home_newer", "newer version")


def test_s10_two_key_files_are_refused(path: Path) -> None:
    """S10: two key files."""
    (path / "device (1).key").write_bytes((path / "device.key").read_bytes())
    refused(path, "home_two_keys", "device (1).key, device.key")


def test_s10_a_key_of_another_device_is_refused(path: Path) -> None:
    make(path.parent / "other", "b")[0].close()
    (path / "device.key").write_bytes((path.parent / "other" / "device.key").read_bytes())
    refused(path, "home_certificate", "does not belong")
    (path / "certificate").write_bytes(b"\xff")
    refused(path, "home_certificate", "does not belong")
    (path / "certificate").unlink()
    refused(path, "home_file_missing", "certificate")


def test_s7_links_and_folders_in_place_of_files_are_refused(path: Path) -> None:
    """S7: symlink … → start refuses with the path."""
    (path / "device.key").rename(path / "elsewhere")
    (path / "device.key").symlink_to(path / "elsewhere")
    refused(path, "home_link", "link")
    (path / "device.key").unlink()
    (path / "device.key").mkdir(mode=0o700)
    refused(path, "home_not_file", "not a file")


def test_an_existing_home_is_not_made_again(path: Path) -> None:
    before = (path / "device.key").read_bytes()
    with pytest.raises(HomeError) as caught:
        make(path, "b")
    assert caught.value.code == "home_exists"
    assert (path / "device.key").read_bytes() == before


def test_a_name_is_shown_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name"):
        create_home(tmp_path / "home", name="  ", random_bytes=seeded("a"), now_ms=lambda: NOW)
    assert not (tmp_path / "home").exists()
    home, _ = create_home(tmp_path / "home", name=" a\x1b[2J ", random_bytes=seeded("a"), now_ms=lambda: NOW)
    with home:
        assert home.name == "a�[2J"


def test_s6_a_second_opening_says_who_has_it(path: Path) -> None:
    """S6: second instance started → second exits `already_running (pid)`."""
    with open_home(path) as home:
        with pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}\)") as caught:
            open_home(path)
        assert caught.value.code == "already_running"
        with pytest.raises(HomeError):
            make(path)
    home.close()
    open_home(path).close()


HOLD = """
import sys
from peers.home import open_home
home = open_home(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_s6_a_killed_process_leaves_a_lock_file_that_locks_nothing(path: Path) -> None:
    """S6: … and a stale pid file harms nobody: the kernel dropped the lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}"):
            open_home(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    assert (path / "lock").read_text() == f"{holder.pid}\n"
    open_home(path).close()


def test_a_refused_home_is_not_left_locked(path: Path) -> None:
    key = (path / "device.key").read_bytes()
    (path / "device.key").write_bytes(b"")
    refused(path, "home_key_empty")
    (path / "device.key").write_bytes(key)
    open_home(path).close()


def test_s1_a_full_disk_at_creation_leaves_nothing_behind(tmp_path: Path) -> None:
    """S1: disk full at … key creation → `disk_full`; works when space returns."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 64, 300, 400):  # the lock file, the certificate; the key is smaller than the certificate
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(DiskFull, match="free some"):
                make(tmp_path / "home")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert {item.name for item in (tmp_path / "home").iterdir()} <= {"lock", "groups"}
    make(tmp_path / "home")[0].close()


def test_a_draft_of_a_killed_creation_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "certificate.new").write_bytes(b"half")
    make(tmp_path / "home")[0].close()
    assert not (tmp_path / "home" / "certificate.new").exists()


def test_a_home_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(HomeError, match="file"):
            make(bad)


def test_where_things_lie(path: Path) -> None:
    folder = HomeFolder(path)
    group = b"\xab" * 32
    assert folder.has_keys() and not HomeFolder(path.parent).has_keys()
    assert folder.group_path(group) == path / "groups" / f"{'ab' * 32}.db"
    assert {folder.device_db_path, folder.run_path, folder.socket_path} == {
        path / "device.db", path / "run.json", path / "socket",
    }  # fmt: skip
    assert folder.group_ids() == [] == HomeFolder(path / "none").group_ids()
    for name in (f"{'ab' * 32}.db", f"{'ab' * 32}.db-wal", "x.db", f"{'CD' * 32}.db", f"{'01' * 32}.db"):
        (folder.groups_dir / name).touch()
    assert folder.group_ids() == [b"\x01" * 32, group]
    with pytest.raises(ValueError, match="32 bytes"):
        folder.group_path(b"../../x")


def test_t30_a_link_out_of_the_home_is_refused(path: Path) -> None:
    """T30: path is checked to be inside the data dir."""
    outside = path.parent / "outside.db"
    outside.touch()
    (path / "groups" / f"{'ab' * 32}.db").symlink_to(outside)
    with pytest.raises(HomeError, match="out of the home"):
        HomeFolder(path).group_path(b"\xab" * 32)
