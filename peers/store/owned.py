"""Rights over rows of owned tables, judged on facts of the entry's own past (C11, C14).

An insert must carry ids that its author's device made; a delete or restore needs the row's owner or an admin. The owner
is whose user the id was made by: the author's logs that the entry's chain names, its own log, and the incarnations that
its leaves name. The same for every replica.
"""

from peers.errors import EntryFault, EntryHeld, EntryRefused
from peers.model import membership
from peers.model.entries import Action, Header, Leaf
from peers.model.ids import LogId, UserId, parse_row_id, row_maker, short
from peers.store.catalog import Catalog
from peers.store.causality import Causality
from peers.store.change_log import ChangeLog
from peers.store.control_log import ControlLog
from peers.store.rows import LocalTable


class OwnedRows:
    """Checks entries of others before they are stored."""

    def __init__(self, log: ChangeLog, control: ControlLog, causality: Causality) -> None:
        self._log = log
        self._control = control
        self._causality = causality

    def check(self, header: Header, user: UserId, leaves: list[tuple[Leaf, bytes]], catalog: Catalog) -> None:
        """Raises EntryRefused(not_allowed); EntryHeld where what would tell is not here yet."""
        for leaf, _ in leaves:
            table = catalog.by_id(leaf.table)
            if table is None or not table.table.owned or leaf.action is Action.UPDATE:
                continue
            if leaf.action is Action.INSERT:
                self._check_insert(header, user, leaf, table)
            else:
                self._check_delete(header, user, leaf, table)

    def _check_insert(self, header: Header, user: UserId, leaf: Leaf, table: LocalTable) -> None:
        if isinstance(leaf.keys, int):
            return
        logs = {header.log, LogId(header.device, leaf.id_incarnation or header.incarnation)}
        for key in leaf.keys[0]:
            if not _is_made_by(key, user, logs):
                raise _refusal(header, table, "inserts a row whose id is not its author's")

    def _check_delete(self, header: Header, user: UserId, leaf: Leaf, table: LocalTable) -> None:
        if isinstance(leaf.keys, int):
            return
        operations = self._control.operations
        held = membership.role(operations, user, header.control_heads)
        if held is not None and held >= membership.Role.ADMIN:
            return
        logs = {header.log, LogId(header.device, leaf.id_incarnation or header.incarnation)}
        logs |= self._past_logs(header)
        mine = {log for log in logs if membership.author_of(operations, log.device, header.control_heads) == user}
        others = [key for key in leaf.keys[0] if not _is_made_by(key, user, mine)]
        if not others:
            return
        mine |= self._id_logs(user)
        if all(_is_made_by(key, user, mine) for key in others):
            return
        if any(self._log.find(dep.log, dep.seq, dep.hash) is None for dep in header.deps):
            raise EntryHeld(EntryFault.GAP, f"{_name(header)}: what would tell the owner of a row is not here yet")
        raise _refusal(header, table, "deletes or restores a row that is not its author's")

    def _past_logs(self, header: Header) -> set[LogId]:
        logs = {dep.log for dep in header.deps}
        if header.seq > 1:
            found = self._log.find(header.log, header.seq - 1, header.prev)
            assert found is not None
            logs |= {self._log.branches[other].log for other in self._causality.vector(found[1], header.seq - 1)}
        return logs

    def _id_logs(self, user: UserId) -> set[LogId]:
        """Under which incarnations stored entries of the user have made ids that their own does not tell."""
        return self._log.id_logs(user)


def _is_made_by(key: str, user: UserId, logs: set[LogId]) -> bool:
    parts = parse_row_id(key)
    return parts is not None and any(parts.maker == row_maker(user, *log, parts.hlc) for log in logs)


def _refusal(header: Header, table: LocalTable, what: str) -> EntryRefused:
    return EntryRefused(EntryFault.NOT_ALLOWED, f"{_name(header)}: {what} (table {table.name})")


def _name(header: Header) -> str:
    return f"entry {header.seq} of device {short(header.device)}"
