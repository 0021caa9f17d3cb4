"""A user's personal group: how it begins, and the tables that every device of the user has.

The root key signs the genesis and the grant of the first device, and is forgotten (its 24 words are the user's).
"""

from peers.model.keys import SigningKey
from peers.model.operations import Kind, Operation, Role, consent, sign_operation
from peers.model.schema import Column, ColumnType, declare_table

GROUPS_TABLE = declare_table(
    "Groups",
    [
        Column("group_id", ColumnType.TEXT, not_null=True, key=1),
        Column("name", ColumnType.TEXT),
        Column("joined_ms", ColumnType.INTEGER),
        Column("wanted", ColumnType.INTEGER, not_null=True, default=1),
    ],
)
"""Intent: the groups, by their id in hex, that the user wants. `GroupMembers` of the group itself is the authority;
both must say yes before any of its data moves."""


def found_user(root: SigningKey, device: SigningKey, *, hlc: int) -> tuple[Operation, Operation]:
    """The genesis of a user and the root's grant of the first device, which becomes admin. Needs both keys."""
    genesis = sign_operation(root, group=b"", kind=Kind.USER, parents=(), hlc=0)
    agreed = consent(device, genesis.id)
    grant = sign_operation(
        root,
        group=genesis.id,
        kind=Kind.GRANT,
        parents=(genesis.id,),
        hlc=hlc,
        fields=(device.public, int(Role.ADMIN), agreed),
    )
    return genesis, grant
