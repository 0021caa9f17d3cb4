import pytest

from peers.errors import ProtocolError
from peers.sync.slots import SlotTable

GROUP, OTHER = bytes(32), bytes([1]) * 32


def test_the_dialler_counts_odd_and_the_listener_even() -> None:
    dialler, listener = SlotTable(dialled=True), SlotTable(dialled=False)
    assert [dialler.take() for _ in range(3)] == [1, 3, 5]
    assert [listener.take() for _ in range(3)] == [2, 4, 6]


def test_a_route_opens_in_one_direction() -> None:
    dialler, listener = SlotTable(dialled=True), SlotTable(dialled=False)
    slot = dialler.take()
    listener.use(slot)
    listener.accept(slot, GROUP)
    dialler.opened(slot, GROUP)
    assert listener.inbound(slot) == GROUP
    assert dialler.outbound(GROUP) == slot
    assert listener.outbound(GROUP) is None
    assert dialler.inbound(slot) is None


@pytest.mark.parametrize("slot", [2, 4])
def test_a_peer_opens_only_slots_of_its_own_parity(slot: int) -> None:
    with pytest.raises(ProtocolError, match="not the peer's to open"):
        SlotTable(dialled=False).use(slot)


def test_a_slot_is_never_used_twice() -> None:
    listener = SlotTable(dialled=False)
    listener.use(1)
    listener.accept(1, GROUP)
    listener.close_inbound(1)
    assert listener.inbound(1) is None
    with pytest.raises(ProtocolError):
        listener.use(1)


def test_a_slot_that_was_refused_is_used_up() -> None:
    listener = SlotTable(dialled=False)
    listener.use(1)
    assert listener.inbound(1) is None
    with pytest.raises(ProtocolError):
        listener.use(1)


def test_a_new_route_to_a_group_replaces_the_old_one() -> None:
    listener = SlotTable(dialled=False)
    listener.accept(1, GROUP)
    listener.accept(3, GROUP)
    listener.accept(5, OTHER)
    assert (listener.inbound(1), listener.inbound(3), listener.inbound(5)) == (None, GROUP, OTHER)
    listener.close_inbound(3)
    assert (listener.inbound(3), listener.inbound(5)) == (None, OTHER)


def test_closing_what_is_not_open_says_so() -> None:
    dialler = SlotTable(dialled=True)
    assert dialler.close_outbound(GROUP) is None
    dialler.opened(dialler.take(), GROUP)
    assert dialler.outbound_groups() == {GROUP: 1}
    assert dialler.close_outbound(GROUP) == 1
    assert dialler.outbound_groups() == {}
