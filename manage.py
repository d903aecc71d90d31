#!/usr/bin/env python
"""Django's command line. `make run` and `make test` do all set-up; this is for single commands after that."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatbot_site.settings.dev")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        if sys.argv[1:2] == ["doctor"]:
            from observability.doctor.unconfigured import report_unconfigured

            print(report_unconfigured(error, arguments=sys.argv))
            sys.exit(1)
        sys.exit(str(error))


if __name__ == "__main__":
    main()
