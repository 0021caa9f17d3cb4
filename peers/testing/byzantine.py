"""Devices that lie. So far one lie: to withhold one entry from one peer."""

from peers.model.entries import decode_header
from peers.model.ids import DeviceId, Hash
from peers.store.pages import Page
from peers.sync.replica import Replica


class Withholding:
    """Leaves one entry out of everything that goes to `victim`: the first it meets that another device wrote."""

    def __init__(self, replica: Replica, victim: DeviceId) -> None:
        self._own = replica.device_id
        self._victim = victim
        self._withheld: Hash | None = None

    def __call__(self, peer: DeviceId, page: Page) -> Page:
        if peer != self._victim:
            return page
        kept = []
        for entry in page.entries:
            header = decode_header(entry.header)
            if self._withheld is None and header.device != self._own:
                self._withheld = header.hash
            if header.hash != self._withheld:
                kept.append(entry)
        return Page(kept, page.more)


def withhold_one_entry(replica: Replica, victim: DeviceId) -> None:
    """From now on."""
    replica.outgoing = Withholding(replica, victim)
