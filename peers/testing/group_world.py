"""A group with users, devices and tables as test material: real keys, real control operations, nothing random.

`group_world()` is the same group each time (keys come from hashes of names), so it is made once and shared. User 0 made
the group and owns it; the others are writers. The last device writes nothing in histories: replicas open as it. The
control operations form one chain, so every entry names one head.
"""

from dataclasses import dataclass
from functools import lru_cache

from peers.model.clock import pack
from peers.model.ids import GroupId, Hash, UserId, blake2b_256
from peers.model.keys import SigningKey
from peers.model.operations import Kind, Operation, Role, SignedBytes, consent, sign_operation
from peers.model.schema import Column, ColumnType, Schema, Table, declare_table, table_to_fields

BASE_MS = 1_700_000_000_000
"""The wall clock when the group was made."""


@dataclass(frozen=True)
class WorldDevice:
    """One device of one user, with the personal operations that certify it."""

    index: int
    user_index: int
    user: UserId
    key: SigningKey
    certificate: tuple[Operation, ...]


@dataclass(frozen=True)
class GroupWorld:
    """The plain facts of the group."""

    group: GroupId
    users: tuple[UserId, ...]
    devices: tuple[WorldDevice, ...]
    schema: Schema
    operations: tuple[Operation, ...]
    """The group's control operations, genesis first, causes before effects."""

    @property
    def writers(self) -> tuple[WorldDevice, ...]:
        """The devices that write in histories."""
        return self.devices[:-1]

    @property
    def observer(self) -> WorldDevice:
        """The device as which a replica opens the group's file, without writing."""
        return self.devices[-1]

    @property
    def control_heads(self) -> tuple[Hash, ...]:
        return (self.operations[-1].id,)

    @property
    def signed_operations(self) -> list[SignedBytes]:
        """What `GroupStore.create` and `add_operations` take."""
        return [operation.signed for operation in self.operations]

    def user_of(self, device_key: bytes) -> UserId:
        return next(device.user for device in self.devices if device.key.public == device_key)


def standard_tables() -> tuple[Table, ...]:
    """Default ids, owned default ids, a composite key, a natural key of one column, and a table that is only a key."""
    identity = Column("id", ColumnType.TEXT, not_null=True, key=1)
    return (
        declare_table(
            "trade",
            [
                identity,
                Column("symbol", ColumnType.TEXT),
                Column("qty", ColumnType.INTEGER, not_null=True, default=1),
                Column("note", ColumnType.ANY),
            ],
            default_id=True,
        ),
        declare_table(
            "idea",
            [identity, Column("title", ColumnType.TEXT), Column("score", ColumnType.REAL, not_null=True)],
            default_id=True,
            owned=True,
        ),
        declare_table(
            "tagof",
            [
                Column("w", ColumnType.INTEGER),
                Column("tag", ColumnType.INTEGER, not_null=True, key=2),
                Column("trade", ColumnType.TEXT, not_null=True, key=1),
                Column("body", ColumnType.BLOB, not_null=True),
            ],
        ),
        declare_table("setting", [Column("k", ColumnType.BLOB, not_null=True, key=1), Column("v", ColumnType.ANY)]),
        declare_table("mark", [Column("n", ColumnType.INTEGER, not_null=True, key=1)]),
    )


@lru_cache(maxsize=8)
def group_world(devices_per_user: tuple[int, ...] = (2, 1, 2)) -> GroupWorld:
    """The group of `len(devices_per_user)` users."""
    devices: list[WorldDevice] = []
    for user_index, count in enumerate(devices_per_user):
        root = _key(f"root {user_index}")
        genesis = sign_operation(root, group=b"", kind=Kind.USER, parents=(), hlc=0)
        for number in range(count):
            key = _key(f"device {user_index} {number}")
            fields = [key.public, int(Role.ADMIN), consent(key, genesis.id)]
            grant = sign_operation(root, group=genesis.id, kind=Kind.GRANT, parents=[genesis.id], hlc=1, fields=fields)
            devices.append(WorldDevice(len(devices), user_index, genesis.id, key, (genesis, grant)))
    users = tuple(dict.fromkeys(device.user for device in devices))
    operations = _control_chain(devices, users)
    shown = Schema(standard_tables())
    return GroupWorld(operations[0].id, users, tuple(devices), shown, tuple(operations))


def _control_chain(devices: list[WorldDevice], users: tuple[UserId, ...]) -> list[Operation]:
    founder = devices[0]
    first_fields = [founder.user, "history", "admins", b"salt of 16 bytes"]
    chain = [
        sign_operation(
            founder.key,
            group=b"",
            kind=Kind.GROUP,
            parents=(),
            hlc=pack(BASE_MS),
            enclosed=founder.certificate,
            fields=first_fields,
        )
    ]

    def add(device: WorldDevice, kind: Kind, fields: list[object], enclosed: tuple[Operation, ...] = ()) -> None:
        before = chain[-1]
        chain.append(
            sign_operation(
                device.key,
                group=chain[0].id,
                kind=kind,
                parents=[before.id],
                hlc=before.hlc + 1,
                enclosed=enclosed,
                fields=fields,
            )
        )

    for user in users[1:]:
        add(founder, Kind.GRANT, [user, int(Role.WRITER), None])
    for device in devices[1:]:
        add(device, Kind.DEVICE_ADDED, [device.user], device.certificate)
    for table in standard_tables():
        add(founder, Kind.TABLE, table_to_fields(table))
    return chain


def _key(name: str) -> SigningKey:
    return SigningKey(blake2b_256(b"peers.testing " + name.encode()))
