"""`python -m chatbot_site.local run|test|check`, started by bootstrap.py in the virtual environment."""

from __future__ import annotations

import sys

from .processes import Interrupts, StopRequested
from .refusal import Refusal


def main() -> None:
    """Run the command and turn what stops it into a sentence and an exit code."""
    interrupts = Interrupts()
    interrupts.install()
    command, arguments = sys.argv[1], sys.argv[2:]
    try:
        if command == "run":
            from .running import run

            run(interrupts)
        elif command == "test":
            from .testing import test

            sys.exit(test(interrupts, arguments))
        elif command == "check":
            from .checking import check

            sys.exit(check(interrupts))
        else:
            raise Refusal(f"Unknown command '{command}'. Use run, test or check.")
    except Refusal as refusal:
        sys.exit(str(refusal))
    except StopRequested:
        print("Stopped.", flush=True)
        sys.exit(0 if command == "run" else 130)


main()
