"""The module selectors, on sockets of the daemon."""

import selectors as _std
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey  # noqa: F401

from .select import select


class PollSelector(_std._BaseSelectorImpl):
    """Any of the standard library's: there is one way to wait."""

    def select(self, timeout=None):
        keys = list(self.get_map().values())
        if timeout is not None:
            timeout = max(timeout, 0)
        readable, writable, _ = select(
            [k.fd for k in keys if k.events & EVENT_READ], [k.fd for k in keys if k.events & EVENT_WRITE], [], timeout
        )
        found = []
        for k in keys:
            events = EVENT_READ * (k.fd in readable) | EVENT_WRITE * (k.fd in writable)
            if events & k.events:
                found.append((k, events & k.events))
        return found


DefaultSelector = SelectSelector = EpollSelector = PollSelector
