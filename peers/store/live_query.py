"""Live queries: a SELECT whose rows come again whenever a commit has changed them.

``async for rows in live`` yields at once, and then after each commit (of this device's or a merge) that touched one of
the tables that the query reads and did change its rows. Several commits while the consumer was busy give one result:
the newest. Reads on the group's second connection, so it neither waits for the writer nor sees half a transaction.
"""

from collections.abc import AsyncIterator

import trio

from peers.store.capture import Parameters, Rows, SqlDoor
from peers.store.commit_feed import Commit, CommitFeed, Subscription
from peers.store.group_store import GroupStore


class LiveQuery:
    """Made by `Group.watch` and `Table.watch`. Each ``async for`` runs on its own, and may be left at any time."""

    def __init__(self, store: GroupStore, feed: CommitFeed, sql: str, parameters: Parameters = ()) -> None:
        """Raises SqlRefused for what is not one SELECT over tables that exist."""
        self._door = SqlDoor(store.database.shared_reader, dict)
        self._feed = feed
        self.sql = sql
        self.parameters = parameters
        self.tables = self._door.tables_of(sql, parameters)
        """Names of the tables whose commits matter."""

    def __aiter__(self) -> AsyncIterator[Rows]:
        return LiveRows(self, self._feed.attach())

    def read(self) -> Rows:
        """The rows as they are now."""
        return self._door.read(self.sql, self.parameters)

    def look_again(self) -> None:
        """The schema has changed: a view, or a table of another name, may stand behind the query now."""
        self.tables = self._door.tables_of(self.sql, self.parameters)

    def touched_by(self, commit: Commit) -> bool:
        if commit.schema_changed:
            return True
        names = {name.lower() for name in commit.tables}
        return any(table.lower() in names or table.startswith("_peers_") for table in self.tables)


class LiveRows:
    """One iteration over a live query. An object and no generator: leaving the loop leaves nothing to close."""

    def __init__(self, query: LiveQuery, commits: Subscription) -> None:
        self._query = query
        self._commits = commits
        self._rows: Rows | None = None

    def __aiter__(self) -> AsyncIterator[Rows]:
        return self

    async def __anext__(self) -> Rows:
        """The next rows that differ from the last ones. Ends when the group is closed."""
        if self._rows is None:
            await trio.lowlevel.checkpoint()
            self._commits.take_all()  # what was committed before this read is in it
            self._rows = self._query.read()
            return self._rows
        while True:
            try:
                waiting = [await self._commits.receive()]
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            waiting += self._commits.take_all()
            if not any(self._query.touched_by(commit) for commit in waiting):
                continue
            if any(commit.schema_changed for commit in waiting):
                self._query.look_again()
            rows = self._query.read()
            if rows != self._rows:
                self._rows = rows
                return rows
