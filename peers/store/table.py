"""Table: what a program holds of one table. Every method is one transaction of the group's writer.

Keys are given and returned as the one value of a single key, else as a tuple in the order of the key. A write returns
when it is durable; from then on every read here sees it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.ref import Ref
from peers.errors import UsageError
from peers.model.schema import Value
from peers.store.live_query import LiveQuery
from peers.store.rows import quote
from peers.store.transaction import Transaction
from peers.store.writer import Delete, Message, Restore, Save, SaveColumns, Transact


class Table:
    """Made by `Group.table`. Raises NotFound at the first use where the group has no such table."""

    def __init__(self, name: str, writer: Ref[Message], watch: Callable[[str], LiveQuery] | None = None) -> None:
        """`watch` makes a live query of a SELECT: `Group.watch`."""
        self.name = name
        self._writer = writer
        self._watch = watch

    async def save(self, row: Mapping[str, Any]) -> Any:
        """Insert the row, or change what differs in the row of its key. Returns the key.

        A row without `id` in a default-id table gets one; columns that are not named get their defaults.

        Raises:
            BadValue: a value that its column may not hold.
            NotFound: no such table or column.
            NotAllowed: this user is a reader here.
        """
        return await self._writer.ask(Save(self.name, row))

    async def save_many(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Any]:
        """`save` for many rows that name the same columns, in one transaction. Returns their keys."""
        keys: list[Any] = await self._writer.ask(
            Transact(lambda transaction: transaction.save_many(self.name, columns, rows))
        )
        return keys

    async def save_columns(self, columns: Mapping[str, Sequence[Any]]) -> list[Any]:
        """`save_many` with one sequence of values per column: the fastest way in. Returns the keys."""
        keys: list[Any] = await self._writer.ask(SaveColumns(self.name, columns))
        return keys

    async def delete(self, key: Any) -> bool:
        """Delete the row; whether there was one. In owned tables: by its owner or an admin, else NotAllowed."""
        deleted: bool = await self._writer.ask(Delete(self.name, key))
        return deleted

    async def restore(self, key: Any) -> bool:
        """Bring a deleted row back with its newest values; whether there was one."""
        restored: bool = await self._writer.ask(Restore(self.name, key))
        return restored

    async def get(self, key: Any) -> dict[str, Value] | None:
        """The row of this key by the names of its columns; None where there is none."""
        row: dict[str, Value] | None = await self._writer.ask(
            Transact(lambda transaction: transaction.get(self.name, key))
        )
        return row

    async def find(self, **equal: Any) -> list[dict[str, Value]]:
        """The rows whose columns equal these values, ordered by key; without any, all rows."""

        def find(transaction: Transaction) -> list[dict[str, Value]]:
            return transaction.find(self.name, **equal)

        rows: list[dict[str, Value]] = await self._writer.ask(Transact(find))
        return rows

    def watch(self) -> LiveQuery:
        """``async for rows in table.watch()``: all rows now, and again whenever a commit changes them."""
        if self._watch is None:
            raise UsageError(f"table {self.name}: only a table that Group.table gave can be watched")
        return self._watch(f"SELECT * FROM {quote(self.name)}")
