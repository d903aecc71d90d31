"""TCP ports for programs that tests start: these bind a port only seconds after it was chosen."""

from __future__ import annotations

import socket

# Below 32768, where Linux begins to give out ports to whoever names none: such a port may be somebody else's by then.
_PORTS = iter(range(15_000, 32_000))
_held: list[socket.socket] = []


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses now, and that no test is given again as long as this process lives.

    Each is held by a UDP socket of the same number, which keeps it from the tests of other processes and is in no TCP server's way.
    """
    for port in _PORTS:
        holding = socket.socket(type=socket.SOCK_DGRAM)
        try:
            holding.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            holding.close()
            continue
        _held.append(holding)
        return port
    raise AssertionError("every port was given away")
