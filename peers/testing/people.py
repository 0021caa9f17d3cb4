"""People, devices and groups made from small numbers: the same bytes every time. For tests and examples only.

The keys are known to everybody who reads this file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import nacl.bindings

from peers.model import clock
from peers.model.ids import DeviceId, Hash, UserId, blake2b_256
from peers.model.keys import SigningKey
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, Operation, Role, SchemaPolicy, consent, sign_operation
from peers.model.personal import found_user
from peers.model.trust import DeviceInfo, LocalIdentity, certificate_of, encode_device_info

EPOCH_MS = 1_700_000_000_000
"""The wall clock of these people, 2023-11-14, unless a test says otherwise."""


def key_of(text: str) -> SigningKey:
    """A signing key that follows from a text."""
    return SigningKey(blake2b_256(text.encode()))


@dataclass(frozen=True)
class Person:
    """A user with a root key and a first device, and the two operations that begin the personal group."""

    name: str
    root: SigningKey
    device_key: SigningKey
    box_secret: bytes
    genesis: Operation
    grant: Operation

    @property
    def user(self) -> UserId:
        return self.genesis.id

    @property
    def device(self) -> DeviceId:
        return self.device_key.public

    @property
    def certification(self) -> tuple[Operation, Operation]:
        """What an operation of this person's first device encloses."""
        return self.genesis, self.grant

    def identity(self, addresses: Iterable[str] = (), rev: int = 0) -> LocalIdentity:
        info = DeviceInfo(
            user=self.user,
            device=self.device,
            box_public=nacl.bindings.crypto_scalarmult_base(self.box_secret),
            rev=rev,
            name=self.name,
            addresses=tuple(addresses),
        )
        raw, signature = encode_device_info(self.device_key, info)
        certificate = certificate_of(Operations(self.certification), self.device)
        return LocalIdentity(self.user, self.device_key, self.box_secret, raw, signature, certificate, self.name)


def person(name: str) -> Person:
    """The person of that name."""
    root, device = key_of(f"{name} root"), key_of(f"{name} device")
    genesis, grant = found_user(root, device, hlc=clock.pack(EPOCH_MS))
    return Person(name, root, device, blake2b_256(f"{name} box".encode()), genesis, grant)


def personal_grant(
    author: SigningKey, user: UserId, device: SigningKey, role: Role, parents: Iterable[Hash], *, hlc: int = 1
) -> Operation:
    """A further device of a user, with its consent."""
    fields = (device.public, int(role), consent(device, user))
    return sign_operation(author, group=user, kind=Kind.GRANT, parents=parents, hlc=hlc, fields=fields)


def found_group(owner: Person, name: str = "trades", policy: SchemaPolicy = SchemaPolicy.ADMINS) -> Operation:
    """The genesis of a group of the owner's."""
    salt = blake2b_256(f"{owner.name} {name}".encode())[:16]
    fields = (owner.user, name, policy.value, salt)
    hlc = clock.pack(EPOCH_MS)
    return sign_operation(
        owner.device_key, group=b"", kind=Kind.GROUP, parents=(), hlc=hlc, enclosed=owner.certification, fields=fields
    )


def act(
    author: Person,
    group: Operations,
    kind: Kind,
    fields: Sequence[object],
    *,
    parents: Iterable[Hash] | None = None,
    enclosed: Sequence[Operation] | None = None,
) -> Operation:
    """An operation by a person's first device on the group's heads, or the given parents. It is not added.

    It encloses the author's certification unless told otherwise.
    """
    return sign_operation(
        author.device_key,
        group=group.genesis.id,
        kind=kind,
        parents=group.heads if parents is None else parents,
        hlc=clock.pack(EPOCH_MS, len(group)),
        enclosed=author.certification if enclosed is None else enclosed,
        fields=fields,
    )


def grant(
    author: Person, group: Operations, user: UserId, role: Role, *, parents: Iterable[Hash] | None = None
) -> Operation:
    """A grant by a person on the group's heads, or the parents given. It is not added."""
    return act(author, group, Kind.GRANT, (user, int(role), None), parents=parents)
