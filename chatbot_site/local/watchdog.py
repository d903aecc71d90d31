"""Stops the supervisor's programs when the supervisor itself was killed and could not.

Reads lines of JSON from standard input: {"add": mark} or {"remove": pid}. The input ends when the supervisor ends, however
that happens; whatever is still listed is stopped then. It holds the data folder's lock meanwhile, so that the next
run waits until nothing of this one is left.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys

from .processes import Mark, stop_all


def main() -> None:
    """Watch until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    marks: dict[int, Mark] = {}
    for line in sys.stdin:
        with contextlib.suppress(ValueError):  # a last line may be cut off
            message = json.loads(line)
            if "add" in message:
                mark = Mark(**message["add"])
                marks[mark.pid] = mark
            else:
                marks.pop(message["remove"], None)
    stop_all(list(marks.values()))


if __name__ == "__main__":
    main()
