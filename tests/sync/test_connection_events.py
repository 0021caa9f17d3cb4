from peers.sync.connection_events import EVENTS_KEPT, ConnectionEvent, ConnectionEventKind, ConnectionEvents

CONNECTING, VERIFIED, CLOSED = ConnectionEventKind


async def test_who_listens_first_hears_what_is_under_way_then_what_happens() -> None:
    events = ConnectionEvents()
    for remote, kinds in {"a": [CONNECTING], "b": [CONNECTING, VERIFIED], "c": [CONNECTING, CLOSED]}.items():
        for kind in kinds:
            events.tell(ConnectionEvent(kind, remote, dialled=True))
    with events.listen() as stream:
        events.tell(ConnectionEvent(VERIFIED, "a", dialled=True))
        events.tell(ConnectionEvent(CLOSED, "b", dialled=True))
        heard = [await anext(stream) for _ in range(3)]
    assert [(event.kind, event.remote) for event in heard] == [(CONNECTING, "a"), (VERIFIED, "a"), (CLOSED, "b")]


async def test_a_listener_that_does_not_read_loses_the_oldest() -> None:
    events = ConnectionEvents()
    with events.listen() as stream:
        for number in range(EVENTS_KEPT + 1):
            events.tell(ConnectionEvent(CLOSED, str(number), dialled=False))
        assert (await anext(stream)).remote == "1"
