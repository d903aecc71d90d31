"""`manage.py setup`: what a server needs besides its tables. Safe to run at every start, and by several at once.

It brings the environment's provider in step, makes the roles, publishes the example agents where there is no agent, creates a
superuser where there is nobody, and looks up what models cost. What people made since stays as it is.
"""

from __future__ import annotations

import asyncio
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from agents import roles
from agents.checks import check_providers, check_reachable
from agents.models import Agent, Provider
from agents.providers.environment import keep_default_provider
from agents.versions.documents import apply_document, read_document
from agents.versions.publishing import NotPublishable
from observability.api import look_up, models_in_use, prices_in_use, store_prices

EXAMPLES: Final = Path(__file__).resolve().parent.parent.parent / "examples"
# Any constant: two runs at once take turns, and the second finds everything done.
LOCK: Final = 7_241_905


class Command(BaseCommand):
    help = "Prepare the default provider, the roles, the example agents and the first superuser. Safe to repeat."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-examples", action="store_true", help="leave the example agents out")
        parser.add_argument("--no-admin", action="store_true", help="create no superuser")

    def handle(self, *, no_examples: bool, no_admin: bool, **options: Any) -> None:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise CommandError("The database is not up to date. Run `manage.py migrate` first.")
        lines: list[str] = []
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            provider = keep_default_provider()
            roles.create_groups()
            if not no_examples:
                lines += _create_examples()
            if not no_admin:
                lines += _create_superuser()
        lines += _price_models()
        # Printed once everything is committed: a password of a run that failed would open nothing.
        for line in [*_about(provider), *lines]:
            self.stdout.write(line)


def _about(provider: Provider | None) -> list[str]:
    if provider is None:
        return ["There is no default provider: set OPENAI_API_KEY, or OPENAI_BASE_URL and DEFAULT_CHAT_MODEL, and run this again."]
    if provider.is_demo:
        return ["Answers come from the built-in demo model, not for real answers. Set OPENAI_API_KEY for a real one."]
    lines = [f"Answers come from {provider.slug} ({provider.base_url}), model {provider.default_model or '(none)'}."]
    if not provider.default_model:
        lines.append("That provider has no default model: set DEFAULT_CHAT_MODEL and run this again, or name a model in each agent.")
    for message in (*check_providers(databases=["default"]), *check_reachable(databases=["default"])):
        lines.append(f"Warning: {message.msg} {message.hint}")
    return lines


def _price_models() -> list[str]:
    models = [model for model in models_in_use() if not model.is_free]
    if not models:
        return []
    try:
        entries = asyncio.run(look_up(models))
    except (RuntimeError, OSError) as error:  # TimeoutError is an OSError
        return [f"Warning: prices could not be looked up ({error}); the worker tries again."]
    with transaction.atomic():
        store_prices(models, entries)
    unknown = [f"{model.model} at {model.provider}" for model, price in prices_in_use() if price is None and not model.is_free]
    if not unknown:
        return []
    return [f"The price of {', '.join(unknown)} is unknown: enter it in the admin under Prices if calls of it shall count in money."]


def _create_examples() -> list[str]:
    if Agent.objects.exists():
        return []
    published, drafted = [], []
    for file in sorted(EXAMPLES.glob("*.yaml")):
        document = read_document(file.read_text(encoding="utf-8"), source=file.name)
        try:
            apply_document(document, author=None, publish=True, source=file.name)
            published.append(document.slug)
        except NotPublishable:
            # No provider or no model yet: the agents wait as drafts for the person who adds one.
            apply_document(document, author=None, source=file.name)
            drafted.append(document.slug)
    lines = [f"Created the example agents {', '.join(published)}."] if published else []
    if drafted:
        lines.append(f"Created {', '.join(drafted)} as drafts: publish them in the admin once there is a provider with a model.")
    return lines


def _create_superuser() -> list[str]:
    people = get_user_model()
    if people.objects.exists():
        return []
    password = secrets.token_urlsafe(15)
    people.objects.create_superuser(username="admin", email="", password=password)
    where = "" if settings.ENVIRONMENT_NAME == "development" else " Sign in now and change it."
    return [f'Created the superuser "admin" with the password {password} (shown only this once).{where}']
