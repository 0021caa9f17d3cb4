"""Leaves as they are applied: decoded, with their shape and the keys of their rows. Checks types, nothing else."""

from dataclasses import dataclass
from typing import Any

from peers.errors import BadValue, EntryFault, EntryRefused
from peers.model.entries import Action, Header, Leaf, decode_leaf
from peers.model.ids import UserId, row_ids, row_maker
from peers.model.schema import check_values
from peers.store.catalog import Catalog, Shape
from peers.store.change_log import EntryInfo, StoredLeaf
from peers.store.rows import LocalTable

Key = tuple[Any, ...]


@dataclass(slots=True)
class WrittenLeaf:
    """One decoded leaf. `keys` is made on demand: the fast path of new rows needs only the column of ids."""

    shape: Shape
    rows: int
    leaf: Leaf
    maker: bytes
    hlc: int
    checked: bool = False
    """Whether `check_leaf` has let it through, by the columns that are known now."""
    _columns: list[list[Any]] | None = None
    _keys: list[Key] | None = None

    @property
    def action(self) -> Action:
        return self.leaf.action

    @property
    def key_columns(self) -> list[list[Any]]:
        if self._columns is None:
            keys = self.leaf.keys
            self._columns = [row_ids(self.hlc, keys, self.rows, self.maker)] if isinstance(keys, int) else keys
        return self._columns

    @property
    def keys(self) -> list[Key]:
        if self._keys is None:
            self._keys = list(zip(*self.key_columns, strict=True))
        return self._keys


@dataclass(slots=True)
class Written:
    """An entry on its way into the tables."""

    info: EntryInfo
    header: Header
    closed: bool
    implied_maker: bytes | None
    """The maker of the ids that name this entry as their base; None where none do."""
    leaves: list[WrittenLeaf]
    anew: bool = False
    """Whether its rows are to be recomputed even if it is closed (it was void before)."""


def written_leaf(
    shape: Shape, leaf: Leaf, rows: int, user: UserId, header: Header, *, checked: bool = False
) -> WrittenLeaf:
    maker = row_maker(user, header.device, leaf.id_incarnation or header.incarnation, header.hlc)
    return WrittenLeaf(shape, rows, leaf, maker, header.hlc, checked)


def read_leaf(catalog: Catalog, stored: StoredLeaf, user: UserId, header: Header) -> WrittenLeaf:
    """A leaf as it lies in the log."""
    leaf = decode_leaf(stored.data, stored.rows)
    return written_leaf(catalog.shape(stored.shape), leaf, stored.rows, user, header)


def check_leaf(table: LocalTable, leaf: Leaf) -> None:
    """Raises EntryRefused(bad_value) unless every key and every value of a known column may stand where it goes."""
    key = table.table.key
    if isinstance(leaf.keys, int):
        if not table.table.default_id:
            raise EntryRefused(EntryFault.BAD_VALUE, f"table {table.name}: ordinals, but no default ids")
    elif len(leaf.keys) != len(key):
        raise EntryRefused(EntryFault.BAD_VALUE, f"table {table.name}: a key of {len(leaf.keys)} columns")
    try:
        if not isinstance(leaf.keys, int):
            for column, values in zip(key, leaf.keys, strict=True):
                check_values(column, values)
        for column_id, values in zip(leaf.columns, leaf.values, strict=True):
            at = table.positions.get(column_id)
            if at is not None:
                check_values(table.by_position[at], values)
            elif any(column.id == column_id for column in key):
                raise EntryRefused(EntryFault.BAD_VALUE, f"table {table.name}: a key column among the values")
    except BadValue as error:
        raise EntryRefused(EntryFault.BAD_VALUE, f"table {table.name}: {error}") from error
