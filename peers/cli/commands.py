"""The commands that need a device: plain functions from arguments to plain results, in one table.

They run inside a running device, asked through its control socket, or on a device that the command line opened from
the files because none runs: the same functions, so both say the same. Arguments and results are plain values (ids as
hexadecimal text); rows of a query travel as progress, a page at a time. Nothing is printed here.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from peers.cli.control_socket import Handler, Progress
from peers.cli.import_rows import import_file
from peers.device import Device
from peers.errors import UsageError
from peers.group import Group
from peers.model.membership import Role
from peers.store.sql_tokens import one_statement
from peers.sync.connection_events import ConnectionEventKind

Command = Callable[[Device, dict[str, Any], Progress], Awaitable[Any]]

QUERY_PAGE_ROWS = 1000
"""Rows of a result in one progress message."""
CONNECT_WAIT_SECONDS = 10.0
"""How long `connect` waits to say what became of the first attempt: one dial and one handshake."""


async def identity(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    return {"user": device.user_id.hex(), "device": device.device_id.hex(), "name": device.name}


async def status(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    return device.status()


async def create_group(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    group = await device.create_group(args["name"], schema=args.get("schema", "admins"))
    return {"id": group.id.hex(), "name": group.name}


async def list_groups(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    return [_describe(group) for group in device.groups()]


def _describe(group: Group) -> dict[str, Any]:
    described: dict[str, Any] = {"id": group.id.hex(), "name": group.name, "pending": group.pending}
    described["role"] = None if group.role is None else group.role.name.lower()
    described["members"] = 0 if group.pending else len(group.members())
    return described


async def list_members(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    members = device.group(args["group"]).members()
    ranked = sorted(members.items(), key=lambda item: (-item[1], item[0]))
    return [{"user": user.hex(), "role": role.name.lower(), "self": user == device.user_id} for user, role in ranked]


async def grant(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    group = device.group(args["group"])
    user = parse_id(args["user"], "user")
    await group.grant(user, Role[args["role"].upper()])
    return {"group": group.name, "user": user.hex(), "role": args["role"]}


async def join(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    group = await device.join_group(parse_id(args["group"], "group"))
    granted = group.id in device.offered()
    return {"id": group.id.hex(), "pending": group.pending, "granted": granted, "user": device.user_id.hex()}


async def create_table(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    group = device.group(args["group"])
    table = await group.create_table(args["sql"], owned=bool(args.get("owned", False)))
    return {"group": group.name, "table": table.name}


async def import_csv(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    return await import_file(device.group(args["group"]), args, progress)


async def sql(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    """Rows travel as progress `{"columns": […]}`, then `{"rows": [[…], …]}`; the result is what changed."""
    group = device.group(args["group"])
    parameters = args.get("parameters", ())
    if changes_rows(args["sql"]):
        result = await group.execute(args["sql"], parameters)
        return {"rows_changed": result.rows_changed}
    answer = await group.query(args["sql"], parameters)
    await progress({"columns": list(answer.columns)})
    for start in range(0, len(answer.rows), QUERY_PAGE_ROWS):
        await progress({"rows": [list(row) for row in answer.rows[start : start + QUERY_PAGE_ROWS]]})
    return {"rows": len(answer.rows)}


def changes_rows(text: str) -> bool:
    """Whether a statement is not just a question. After WITH, the first verb outside all parentheses tells.

    Raises:
        SqlRefused: for no statement, or several.
    """
    depth = 0
    for token in one_statement(text):
        depth += token.is_mark("(") - token.is_mark(")")
        if depth == 0 and token.is_word("SELECT", "VALUES", "EXPLAIN", "PRAGMA"):
            return False
        if depth == 0 and not token.is_word("WITH") and token.is_word("INSERT", "UPDATE", "DELETE", "REPLACE"):
            return True
        if depth == 0 and not token.is_word("WITH") and token.is_word("CREATE", "ALTER", "DROP", "BEGIN", "COMMIT"):
            return True
    return True


async def state_hash(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    return (await device.group(args["group"]).state_hash()).hex()


async def connect(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    """Dial and remember; then say what became of the first attempt. A failed one goes on being tried."""
    with device.events() as events:
        address = await device.connect(args["address"])
        for known in device.status()["connections"]:
            if known["dialled"] and known["remote"] == address:
                return {"address": address, "verified": True, "name": known["name"], "why": ""}
        with trio.move_on_after(args.get("wait_seconds", CONNECT_WAIT_SECONDS)):
            async for event in events:
                if event.dialled and event.remote == address and event.kind is not ConnectionEventKind.CONNECTING:
                    verified = event.kind is ConnectionEventKind.VERIFIED
                    return {"address": address, "verified": verified, "name": event.name, "why": event.why}
    return {"address": address, "verified": False, "name": "", "why": "no answer yet"}


async def forget(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    return {"address": args["address"], "known": await device.forget(args["address"])}


async def offline(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    await device.offline()


async def online(device: Device, args: dict[str, Any], progress: Progress) -> Any:
    await device.online()


COMMANDS: dict[str, Command] = {
    "id": identity,
    "status": status,
    "create_group": create_group,
    "groups": list_groups,
    "members": list_members,
    "grant": grant,
    "join": join,
    "create_table": create_table,
    "import": import_csv,
    "sql": sql,
    "state_hash": state_hash,
    "connect": connect,
    "forget": forget,
    "offline": offline,
    "online": online,
}
NEEDS_RUNNING = frozenset({"connect", "offline", "online"})
"""What has no meaning for a device that lives only as long as the command."""


def handlers(device: Device) -> dict[str, Handler]:
    """The table for the control socket of this device."""
    return {name: partial(command, device) for name, command in COMMANDS.items()}


def parse_id(text: str, what: str) -> bytes:
    """32 bytes of hexadecimal text. Raises UsageError."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 32:
        raise UsageError(
            f"{text[:80]!r} is not a {what} id: 64 hexadecimal digits, as `peers id` or `group list` shows"
        )
    return value
