"""Decisions about vectors: what a cursor promises, when to pull, when my own log is ahead at a peer."""

from hypothesis import given, settings
from hypothesis import strategies as st

from peers.model.entries import Flag, Header, RawEntry, encode_header
from peers.model.ids import ZERO_HASH, LogId, blake2b_256
from peers.model.version_vector import Head, VersionVector
from peers.sync.exchange import advanced, heads_after, own_logs_disputed, pull_cursor, pull_wanted

ME, OTHER = LogId(bytes(32), b"incarn-1"), LogId(bytes([1]) * 32, b"incarn-2")
NOTHING = VersionVector()


def entry(log: LogId, before: Header | None = None, salt: int = 0) -> tuple[RawEntry, Header]:
    header = encode_header(
        group=bytes(32),
        log=log,
        seq=1 if before is None else before.seq + 1,
        prev=ZERO_HASH if before is None else before.hash,
        hlc=salt,
        control_heads=(bytes(32),),
        deps=(),
        leaves=(),
        flags=Flag.ACK,
    )
    return RawEntry(header.raw, bytes(64), ()), header


def chain(log: LogId, count: int, salt: int = 0, before: Header | None = None) -> tuple[list[RawEntry], list[Header]]:
    raws, headers = [], []
    for _ in range(count):
        raw, before = entry(log, before, salt)
        raws.append(raw)
        headers.append(before)
    return raws, headers


def head(header: Header) -> Head:
    return Head(header.seq, header.hash)


def test_a_cursor_moves_with_what_is_on_its_way() -> None:
    raws, headers = chain(ME, 3)
    others, other_headers = chain(OTHER, 2)
    cursor = advanced(NOTHING, [raws[0], others[0], raws[1], others[1], raws[2]])
    assert cursor.heads == {ME: (head(headers[2]),), OTHER: (head(other_headers[1]),)}
    assert advanced(cursor, raws[2:]) == cursor


def test_a_cursor_keeps_both_branches_of_a_fork() -> None:
    raws, headers = chain(ME, 2)
    twin, twin_header = entry(ME, headers[0], salt=9)
    assert advanced(NOTHING, [*raws, twin]).heads[ME] == tuple(sorted([head(headers[1]), head(twin_header)]))


def test_a_cursor_jumps_a_stretch_that_is_not_in_the_page() -> None:
    """What precedes it is held or asked for again; else the same page would come for ever."""
    raws, headers = chain(ME, 5)
    assert advanced(advanced(NOTHING, raws[:1]), raws[4:]).heads[ME] == (head(headers[4]),)


def test_what_cannot_be_read_moves_no_cursor() -> None:
    raws, headers = chain(ME, 1)
    junk = [RawEntry(b"", bytes(64), ()), RawEntry(b"\x80", bytes(64), ())]
    assert advanced(NOTHING, [junk[0], *raws, junk[1]]).heads == {ME: (head(headers[0]),)}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([ME, OTHER]), max_size=12), st.integers(0, 12))
def test_pages_however_cut_lead_to_the_same_cursor(logs: list[LogId], cut: int) -> None:
    tips: dict[LogId, Header] = {}
    raws = []
    for log in logs:
        raw, tips[log] = entry(log, tips.get(log))
        raws.append(raw)
    whole = advanced(NOTHING, raws)
    assert advanced(advanced(NOTHING, raws[:cut]), raws[cut:]) == whole
    assert whole.heads == {log: (head(header),) for log, header in tips.items()}
    assert advanced(whole, raws[len(raws) :]) == whole
    assert whole.covers(advanced(NOTHING, raws[:cut]))


heads = st.integers(1, 5).map(lambda seq: Head(seq, blake2b_256(bytes([seq]))))
vectors = st.dictionaries(st.sampled_from([ME, OTHER]), heads.map(lambda one: (one,))).map(VersionVector)


@settings(max_examples=200, deadline=None)
@given(vectors, vectors)
def test_a_pull_is_wanted_exactly_where_something_is_missing(mine: VersionVector, theirs: VersionVector) -> None:
    missing = any(theirs.seq(log) > mine.seq(log) for log in theirs.heads)
    assert pull_wanted(mine, (), theirs, ()) == missing
    assert not pull_wanted(mine, (), mine, ())
    assert not (pull_wanted(mine, (), theirs, ()) and mine.covers(theirs))
    assert pull_wanted(mine.joined(theirs), (), theirs, ()) is False


def test_a_pull_is_wanted_for_operations_alone() -> None:
    one, two = bytes([1]) * 32, bytes([2]) * 32
    assert pull_wanted(NOTHING, (one,), NOTHING, (one, two))
    assert not pull_wanted(NOTHING, (one, two), NOTHING, (one,))


def test_my_own_log_is_disputed_where_a_peer_names_an_entry_that_i_do_not_hold() -> None:
    """T21, S9: longer, another branch, a log that I do not know; and a *shorter* other branch too."""
    _, headers = chain(ME, 6)
    held = {(ME, header.seq, header.hash) for header in headers[:5]}

    def disputed(log: LogId, *heads: Head) -> bool:
        claimed = VersionVector({log: tuple(sorted(heads)), OTHER: (Head(9, bytes(32)),)})
        return own_logs_disputed(claimed, ME.device, lambda *entry: entry in held) == ({log} if log != OTHER else set())

    def nothing(log: LogId, *heads: Head) -> bool:
        claimed = VersionVector({log: heads})
        return own_logs_disputed(claimed, ME.device, lambda *entry: entry in held) == set()

    assert disputed(ME, head(headers[5]))
    assert disputed(ME, Head(5, bytes([4]) * 32))
    assert disputed(ME, Head(2, bytes([4]) * 32))
    assert disputed(ME, head(headers[2]), Head(3, bytes([4]) * 32))
    assert disputed(LogId(ME.device, b"incarn-0"), Head(1, bytes([1]) * 32))
    assert nothing(ME, head(headers[4])) and nothing(ME, head(headers[0]))
    assert nothing(OTHER, Head(9, bytes([1]) * 32))
    assert own_logs_disputed(NOTHING, ME.device, lambda *entry: False) == set()


def test_a_pull_names_nothing_of_a_disputed_log() -> None:
    mine = VersionVector({ME: (Head(3, bytes([3]) * 32),), OTHER: (Head(1, bytes([1]) * 32),)})
    assert pull_cursor(mine, ()) == mine
    assert set(pull_cursor(mine, [ME]).heads) == {OTHER}


def test_heads_on_their_way_are_named() -> None:
    operations = [(bytes([at]), bytes(64)) for at in range(3)]
    told = heads_after((bytes(32),), operations)
    assert set(told) == {bytes(32), *(blake2b_256(raw) for raw, _ in operations)}
    assert heads_after((bytes(32),), ()) == (bytes(32),)
    many = [(at.to_bytes(4, "big"), bytes(64)) for at in range(1000)]
    assert blake2b_256(many[-1][0]) in heads_after((), many)
    assert len(heads_after((), many)) == 64
