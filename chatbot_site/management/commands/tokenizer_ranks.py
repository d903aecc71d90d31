"""`manage.py tokenizer_ranks`: run it where an image is built, beside `collectstatic`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from chatbot_site.tokenizer import place_ranks


class Command(BaseCommand):
    help = "Writes the tokenizer's ranks into TIKTOKEN_CACHE_DIR, so that a read-only server has them."
    requires_system_checks: list[str] = []  # an image is built without a database

    def handle(self, *args: Any, **options: Any) -> None:
        folder = place_ranks(settings.TIKTOKEN_CACHE_DIR)
        if folder != settings.TIKTOKEN_CACHE_DIR:
            raise CommandError(f"{settings.TIKTOKEN_CACHE_DIR} cannot be written. Set TIKTOKEN_CACHE_DIR to a folder that can.")
        self.stdout.write(f"The tokenizer's ranks are in {folder}.")
