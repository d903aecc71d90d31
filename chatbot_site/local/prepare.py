"""Migrations, then `manage.py setup`, in one process: starting Django twice would double the wait of each `make run`.

`python -m chatbot_site.local.prepare`
"""

from __future__ import annotations

import os
import sys

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command


def main() -> None:
    """Bring the database up to date and fill what is empty."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatbot_site.settings.dev")
    try:
        django.setup()
        call_command("migrate", interactive=False, verbosity=0)
        call_command("setup")
    except (CommandError, ImproperlyConfigured) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
