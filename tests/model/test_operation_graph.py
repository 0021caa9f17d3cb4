import itertools

import pytest

from peers.errors import EntryFault, EntryHeld, OperationRefused
from peers.model.operation_graph import Operations
from peers.model.operations import Operation, Role
from peers.testing.people import found_group, grant, person

ALICE, BOB, CAROL = person("alice"), person("bob"), person("carol")


def diamond() -> list[Operation]:
    """A genesis, two grants beside each other, and one on top of both."""
    group = Operations([found_group(ALICE)])
    left = grant(ALICE, group, BOB.user, Role.WRITER)
    right = grant(ALICE, group, CAROL.user, Role.READER)
    for operation in (left, right):
        group.add(operation)
    return [group.genesis, left, right, grant(ALICE, group, BOB.user, Role.ADMIN)]


BASE, LEFT, RIGHT, TOP = diamond()


def test_only_operations_whose_past_is_held_are_added() -> None:
    group = Operations()
    assert not group.add(LEFT)
    assert group.missing(LEFT.parents) == {BASE.id}
    assert group.add(BASE) and not group.add(BASE)
    assert not group.add(TOP)
    assert group.missing(TOP.parents) == {LEFT.id, RIGHT.id}
    assert group.add(LEFT) and group.add(RIGHT) and group.add(TOP)
    assert list(group) == [BASE, LEFT, RIGHT, TOP] and len(group) == 4
    assert group.genesis == BASE and group.group == BASE.id


def test_heads_are_what_nobody_names() -> None:
    group = Operations()
    assert group.heads == ()
    for operation, heads in ((BASE, {BASE}), (LEFT, {LEFT}), (RIGHT, {LEFT, RIGHT}), (TOP, {TOP})):
        group.add(operation)
        assert group.heads == tuple(sorted(item.id for item in heads))


def test_the_past_of_heads_holds_the_heads() -> None:
    group = Operations([BASE, LEFT, RIGHT, TOP])
    assert group.past([]) == frozenset()
    assert group.past([LEFT.id]) == {BASE.id, LEFT.id}
    assert group.past([LEFT.id, RIGHT.id]) == {BASE.id, LEFT.id, RIGHT.id}
    assert group.past([TOP.id]) == {item.id for item in group}
    with pytest.raises(EntryHeld) as caught:
        group.past([b"?" * 32])
    assert caught.value.fault is EntryFault.MISSING_CONTROL


def test_since_is_what_the_other_lacks_causes_first() -> None:
    group = Operations([BASE, LEFT, RIGHT, TOP])
    assert group.since([]) == [BASE, LEFT, RIGHT, TOP]
    assert group.since([RIGHT.id]) == [LEFT, TOP]
    assert group.since([RIGHT.id, b"?" * 32]) == [LEFT, TOP]
    assert group.since(group.heads) == []


def test_get_and_contains() -> None:
    group = Operations([BASE])
    assert group.get(BASE.id) is BASE and group.get(LEFT.id) is None
    assert BASE.id in group and LEFT.id not in group and None not in group


def test_every_order_of_arrival_ends_the_same() -> None:
    for order in itertools.permutations([BASE, LEFT, RIGHT, TOP]):
        group = Operations(group=BASE.id)
        assert group.add_all(order) == []
        assert group.heads == (TOP.id,)
        places = {item.id: place for place, item in enumerate(group)}
        assert all(places[parent] < places[item.id] for item in group for parent in item.parents)


def test_what_never_has_its_past_is_handed_back() -> None:
    group = Operations(group=BASE.id)
    assert group.add_all([TOP, RIGHT, BASE]) == [TOP]
    assert group.heads == (RIGHT.id,)
    assert group.add_all([BASE]) == []


def test_operations_of_another_group_are_refused() -> None:
    """C1: other group's id → `bad_signature`."""
    other = found_group(BOB)
    for group in (Operations([BASE]), Operations(group=BASE.id)):
        with pytest.raises(OperationRefused) as caught:
            group.add(other)
        assert caught.value.fault is EntryFault.BAD_SIGNATURE


def test_a_group_without_genesis_is_not_here_yet() -> None:
    with pytest.raises(EntryHeld, match="genesis"):
        _ = Operations().genesis


def test_derived_is_made_once_and_follows_by_the_tail() -> None:
    group = Operations([BASE])
    made = group.derived(list)
    assert group.derived(list) is made
    group.add(LEFT)
    assert list(group.tail(1)) == [(1, LEFT)]
