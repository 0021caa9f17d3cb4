"""Histories: what a few devices wrote, apart and together, as real signed entries; random or focused, from one seed.

A history is made by simulating the authors. Each device keeps the set of entries that it holds, writes on top of it,
names in its deps exactly the heads that it has merged (also above a cut-off; never an entry that waits for its own deps
or for the rest of its transaction), and pulls from the others with everything that came before, or, where the shape
says so, early. Dishonest is only what a shape asks for: forks.

The authors know nothing of stores and merging: the result is plain facts (`History`), to be fed to a store in any order
(`peers.testing.arrivals`) and to the oracle (`peers.model.merge`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from peers.model.clock import pack
from peers.model.entries import Dep, Flag
from peers.model.ids import ZERO_HASH, Hash, LogId
from peers.model.merge import Key, applied_entries
from peers.testing.group_world import WorldDevice, group_world
from peers.testing.history import FIRST_WRITE_MS, Cutoffs, History, HistoryEntry, is_above, signed_entry
from peers.testing.random_writes import LeafMaker, Writer, WriteShape, weighted


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What may happen in a history, and how often. Weights are relative to each other."""

    writes: WriteShape = field(default_factory=WriteShape)
    entries_min: int = 5
    entries_max: int = 24
    devices: int = 4
    write: float = 6
    merge: float = 7
    """Some device pulls one entry of another with its past."""
    early: float = 0
    """… or without what its deps name."""
    fork: float = 0
    renew: float = 0
    """A device goes on under a new incarnation, half of the time from an older copy of its file."""
    cut: float = 0
    """A cut-off is set, raised, lowered or lifted; devices learn it later, each at its own time."""
    more: float = 0
    """Chance that a write is a transaction over several entries."""


RANDOM_SHAPES: tuple[Shape, ...] = (
    Shape(),
    Shape(cut=1.2),
    Shape(early=2, cut=0.6),
    Shape(fork=0.6, renew=0.6, early=0.6),
    Shape(fork=0.4, renew=0.4, early=1, cut=1, more=0.15),
)
"""Every table, a few rows each."""

_ONE_ROW = WriteShape(tables=("trade",), leaves_max=2, rows_max=1, keys_max=1, delete_weight=3, restore_weight=2)
FOCUSED_SHAPES: tuple[Shape, ...] = tuple(
    replace(shape, writes=replace(_ONE_ROW, tables=(table,)), entries_min=3, entries_max=7, devices=3)
    for table in ("trade", "idea", "setting")
    for shape in (
        Shape(early=3),
        Shape(early=2, cut=3),
        Shape(fork=2, early=1),
        Shape(cut=3, renew=2),
        Shape(fork=1, renew=1, cut=2, early=2, more=0.2),
    )
)
"""One or two rows of one table, few entries, much trouble: small enough for every order of arrival."""


def random_history(seed: int, shape: Shape | None = None) -> History:
    """A history of all tables; the same for the same seed."""
    rng = random.Random(f"random {seed}")
    return make_history(rng, shape or rng.choice(RANDOM_SHAPES), name=f"random_history({seed})")


def focused_history(seed: int, shape: Shape | None = None) -> History:
    """A history of few cells; the same for the same seed."""
    rng = random.Random(f"focused {seed}")
    return make_history(rng, shape or rng.choice(FOCUSED_SHAPES), name=f"focused_history({seed})")


def make_history(rng: random.Random, shape: Shape, *, name: str = "make_history") -> History:
    """A history of this shape. Everything random comes from `rng`."""
    simulation = _Simulation(rng, shape)
    wanted = rng.randint(shape.entries_min, shape.entries_max)
    steps = {
        simulation.write: shape.write,
        simulation.merge: shape.merge,
        simulation.merge_early: shape.early,
        simulation.fork: shape.fork,
        simulation.renew: shape.renew,
        simulation.cut: shape.cut,
    }
    while len(simulation.entries) < wanted:
        weighted(rng, steps)()
    return History(name, simulation.world, tuple(simulation.entries.values()), _complete(simulation.cutoffs))


class _Author:
    """One device as it writes: what it holds, and where its own log stands."""

    def __init__(self, device: WorldDevice, incarnation: bytes) -> None:
        self.device = device
        self.incarnation = incarnation
        self.former: bytes | None = None
        self.tip: HistoryEntry | None = None
        self.held: dict[Hash, HistoryEntry] = {}
        self.copy: dict[Hash, HistoryEntry] = {}
        self.cutoffs: Cutoffs = {}

    @property
    def log(self) -> LogId:
        return LogId(self.device.key.public, self.incarnation)

    def closed(self) -> dict[Hash, HistoryEntry]:
        """What may be named in deps: held with its whole past, as far as this device's cut-offs make it count."""
        complete = {entry.hash for entry in applied_entries([entry.oracle for entry in self.held.values()])}
        closed: dict[Hash, HistoryEntry] = {}
        for entry in sorted(self.held.values(), key=lambda entry: entry.header.hlc):
            header = entry.header
            chained = header.seq == 1 or header.prev in closed
            deps = all(dep.hash in closed or is_above(dep.seq, self.cutoffs.get(dep.log)) for dep in header.deps)
            if chained and deps and header.hash in complete:
                closed[header.hash] = entry
        return closed


class _Simulation:
    """All authors of one history."""

    def __init__(self, rng: random.Random, shape: Shape) -> None:
        self.rng = rng
        self.shape = shape
        self.world = group_world()
        self.entries: dict[Hash, HistoryEntry] = {}
        self.cutoffs: list[Cutoffs] = [{}]
        self._chain_deps: dict[Hash, frozenset[Dep]] = {ZERO_HASH: frozenset()}
        self._leaf_maker = LeafMaker(rng, shape.writes, self.world.schema.tables)
        chosen = rng.sample(self.world.writers, shape.devices)
        self._authors = [_Author(device, rng.randbytes(8)) for device in chosen]
        self._skews_ms = {author.device.index: rng.choice((0, 0, 3, 40)) for author in self._authors}

    def write(self) -> None:
        author = self.rng.choice(self._authors)
        self._learn_cutoffs(author)
        if author.tip is not None and is_above(author.tip.header.seq, author.cutoffs.get(author.log)):
            self._renew(author)
        parts = self.rng.randint(2, 3) if self.rng.random() < self.shape.more else 1
        for part in range(parts):
            self._append(author, Flag.MORE if part < parts - 1 else Flag(0), goes_on=part > 0)

    def merge(self) -> None:
        self._pull_something(early=False)

    def merge_early(self) -> None:
        self._pull_something(early=True)

    def fork(self) -> None:
        """A device goes on from an earlier entry of its log, as from a copy of its file that nobody noticed."""
        author = self.rng.choice(self._authors)
        mine = [entry for entry in author.held.values() if entry.header.log == author.log]
        if not mine:
            return
        twin = self.rng.choice(mine)
        author.tip = self.entries.get(twin.header.prev)
        if self.rng.random() < 0.6:  # the copy had seen no more than its own log
            author.held = {entry.hash: entry for entry in self._past(author.tip)}
        self._append(author, Flag(0), twin=twin)

    def renew(self) -> None:
        author = self.rng.choice(self._authors)
        if self.rng.random() < 0.5:
            author.held = dict(author.copy)
        self._renew(author)

    def cut(self) -> None:
        logs = sorted({entry.header.log for entry in self.entries.values()})
        if not logs:
            return
        log = self.rng.choice(logs)
        top = max(entry.header.seq for entry in self.entries.values() if entry.header.log == log)
        choices = [None, None, *range(top + 1)]
        self.cutoffs.append({**self.cutoffs[-1], log: self.rng.choice(choices)})
        self._learn_cutoffs(self.rng.choice(self._authors))

    def _learn_cutoffs(self, author: _Author) -> None:
        if self.rng.random() < 0.4:
            author.cutoffs = self.cutoffs[-1]

    def _renew(self, author: _Author) -> None:
        if author.tip is not None:
            author.former, author.incarnation, author.tip = author.incarnation, self.rng.randbytes(8), None

    def _pull_something(self, *, early: bool) -> None:
        author = self.rng.choice(self._authors)
        self._learn_cutoffs(author)
        offered = [entry for entry in self.entries.values() if entry.hash not in author.held]
        if offered:
            self._pull(author, self.rng.choice(offered), early=early)
        if self.rng.random() < 0.2:
            author.copy = dict(author.held)

    def _pull(self, author: _Author, entry: HistoryEntry, *, early: bool) -> None:
        """Take an entry and its chain; its deps too, unless it is taken early. What is void may never be received."""
        if entry.hash in author.held:
            return
        header = entry.header
        if header.seq > 1:
            self._pull(author, self.entries[header.prev], early=early)
        for dep in header.deps:
            void = is_above(dep.seq, author.cutoffs.get(dep.log))
            if not early and not (void and self.rng.random() < 0.7):
                self._pull(author, self.entries[dep.hash], early=False)
        author.held[entry.hash] = entry

    def _past(self, tip: HistoryEntry | None) -> list[HistoryEntry]:
        past = []
        while tip is not None:
            past.append(tip)
            tip = self.entries.get(tip.header.prev)
        return past

    def _append(self, author: _Author, flags: Flag, *, goes_on: bool = False, twin: HistoryEntry | None = None) -> None:
        prev = author.tip.hash if author.tip is not None else ZERO_HASH
        named = self._chain_deps[prev]
        deps = () if goes_on else tuple(dep for dep in _heads(author) if dep not in named)
        hlc = self._hlc(author, [*named, *deps], goes_on=goes_on, twin=twin)
        leaves = self._leaf_maker.leaves(self._writer(author, hlc), self._known_keys(author))
        entry = signed_entry(
            self.world,
            author.device,
            author.incarnation,
            after=author.tip,
            hlc=hlc,
            deps=deps,
            leaves=leaves,
            flags=flags,
            random_bytes=self.rng.randbytes,
        )
        self.entries[entry.hash] = author.held[entry.hash] = author.tip = entry
        self._chain_deps[entry.hash] = named | set(deps)

    def _hlc(self, author: _Author, seen: Sequence[Dep], *, goes_on: bool, twin: HistoryEntry | None) -> int:
        before = author.tip.header.hlc if author.tip is not None else 0
        if goes_on:
            return before + 1
        least = 1 + max([before, *(self.entries[dep.hash].header.hlc for dep in seen)])
        if twin is not None and twin.header.hlc >= least and self.rng.random() < 0.6:
            return twin.header.hlc  # the ids of both branches' new rows are the same then
        now = pack(FIRST_WRITE_MS + len(self.entries) // 3 * 10 + self._skews_ms[author.device.index])
        if twin is not None:
            return max(least, now)
        return max(least, now, *(entry.header.hlc + 1 for entry in author.held.values()), 0)

    def _writer(self, author: _Author, hlc: int) -> Writer:
        return Writer(
            user=author.device.user, device=author.device.key.public, incarnation=author.incarnation, hlc=hlc,
            is_admin=author.device.user_index == 0, former_incarnation=author.former,
        )  # fmt: skip

    def _known_keys(self, author: _Author) -> dict[bytes, list[Key]]:
        known: dict[bytes, dict[Key, None]] = {}
        for entry in author.held.values():
            for cell in entry.oracle.cells:
                known.setdefault(cell.table, {})[cell.key] = None
        return {table: list(keys) for table, keys in known.items()}


def _heads(author: _Author) -> list[Dep]:
    closed = author.closed()
    inner = {entry.header.prev for entry in closed.values()}
    heads = [entry.header for entry in closed.values() if entry.hash not in inner and entry.header.log != author.log]
    return sorted(Dep(*header.log, header.seq, header.hash) for header in heads)


def _complete(cutoffs: Sequence[Cutoffs]) -> tuple[Cutoffs, ...]:
    """Each step names every log that any step names, so that a step can be set as it is."""
    logs = {log for step in cutoffs for log in step}
    return tuple({log: step.get(log) for log in sorted(logs)} for step in cutoffs)
