"""`manage.py loglevel`: the level of all processes' logs, changed for a while without a restart."""

from __future__ import annotations

import getpass
import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand

from observability.levels import LONGEST, change_level, level_now, restore_level
from observability.logs import LEVELS

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_DEFAULT: Final = "default"


class Command(BaseCommand):
    help = "Show or change the level of all processes' logs. It holds within five seconds and ends by itself."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("level", nargs="?", choices=[*LEVELS, _DEFAULT], help="`default`: LOG_LEVEL again. Absent: show what holds.")
        parser.add_argument(
            "--for", dest="lasting", type=_duration, default=timedelta(hours=1), metavar="TIME", help="such as 15m, 1h or 2d, at most 7d"
        )

    def handle(self, *, level: str | None, lasting: timedelta, **options: Any) -> None:
        by = f"{getpass.getuser()} (manage.py)"
        if level == _DEFAULT:
            restore_level(by=by)
        elif level:
            changed = change_level(level, lasting=lasting, by=by)
            self.stdout.write(f"{changed.level} until {changed.until:%Y-%m-%d %H:%M} UTC, in every process within five seconds.")
            return
        self.stdout.write(f"{level_now()} (LOG_LEVEL is {settings.LOG_LEVEL})")


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    lasting = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < lasting <= LONGEST:
        raise ArgumentTypeError(f"{text!r} is no time such as 15m, 1h or 2d, at most 7d")
    return lasting
