"""The doctor's examinations of this machine and its settings."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core import checks
from django.http.request import validate_host

from chatbot_site.capacity import RESERVED_BYTES, WORKER_BYTES, usable_bytes
from chatbot_site.tokenizer import RANKS
from observability.api import Examination, Finding, in_thread, register_examination

_MB: Final = 1_000_000
_FULL_BYTES, _LITTLE_BYTES = 100 * _MB, 1000 * _MB
_FILES_BESIDE_TURNS: Final = 200
_DEVELOPMENT: Final = (".dev", ".test")
_SOME_ZONES: Final = ("Europe/Berlin", "America/New_York", "Asia/Tokyo")


def register_site_examinations() -> None:
    """Register them; chatbot_site's `ready()` calls it."""
    for name, look, remedy in (
        ("settings", _look_at_settings, "See docs/settings.md."),
        ("host names", _look_at_hosts, "Set ALLOWED_HOSTS and CSRF_TRUSTED_ORIGINS."),
        ("static files", _look_at_static_files, "Run `manage.py collectstatic --noinput`."),
        ("tokenizer", _look_at_tokenizer, "Run `manage.py tokenizer_ranks`."),
        ("time zones", _look_at_time_zones, "Install tzdata."),
        ("disk", _look_at_disk, "Make room."),
        ("open files", _look_at_open_files, "Raise the limit of open files."),
        ("working memory", _look_at_memory, "Lower WEB_CONCURRENCY."),
    ):
        register_examination(Examination(name=name, run=in_thread(look), remedy=remedy))


def _is_development() -> bool:
    return os.environ.get("DJANGO_SETTINGS_MODULE", "").endswith(_DEVELOPMENT)


def _look_at_settings() -> Sequence[Finding]:
    """Run Django's own checks, those of a deployment included, as `manage.py check --deploy` does."""
    findings = []
    for message in checks.run_checks(include_deployment_checks=not _is_development()):
        if message.level >= checks.WARNING and not message.is_silenced():
            make = Finding.failed if message.is_serious() or message.id == "security.W018" else Finding.warning
            findings.append(make(f"{message.msg} ({message.id})", message.hint or "See docs/settings.md."))
    return findings or [Finding.ok(f"{settings.ENVIRONMENT_NAME or 'no ENVIRONMENT_NAME'}; Django's checks find nothing")]


def _look_at_hosts() -> Sequence[Finding]:
    if "*" in settings.ALLOWED_HOSTS:
        return [Finding.warning("any host name is answered", "Name this server's own in ALLOWED_HOSTS.")]
    hosts = [urlsplit(origin).hostname or "" for origin in settings.CSRF_TRUSTED_ORIGINS]
    strange = [host for host in hosts if not validate_host(host.replace("*", "any"), settings.ALLOWED_HOSTS)]
    if strange:
        seen = f"CSRF_TRUSTED_ORIGINS names {', '.join(strange)}, which ALLOWED_HOSTS does not: requests there are refused"
        return [Finding.failed(seen, f"Add {', '.join(strange)} to ALLOWED_HOSTS, or remove it from CSRF_TRUSTED_ORIGINS.")]
    return [Finding.ok(", ".join(settings.ALLOWED_HOSTS))]


def _look_at_static_files() -> Sequence[Finding]:
    if getattr(settings, "SERVESTATIC_USE_FINDERS", False):
        return [Finding.ok("served from where they are written")]
    try:
        staticfiles_storage.url("admin_agents/pages.css")
    except ValueError:
        return [Finding.failed("not collected: pages answer 500", "Run `manage.py collectstatic --noinput` where the server is built.")]
    return [Finding.ok(str(settings.STATIC_ROOT))]


def _look_at_tokenizer() -> Sequence[Finding]:
    folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or settings.TIKTOKEN_CACHE_DIR)
    if missing := [name for name, file in RANKS.items() if not (folder / file).is_file()]:
        seen = f"{' and '.join(missing)} are not in {folder}: each start unpacks them, if it can write there"
        return [Finding.warning(seen, "Run `manage.py tokenizer_ranks`, or name a folder that can be written in TIKTOKEN_CACHE_DIR.")]
    return [Finding.ok(str(folder))]


def _look_at_time_zones() -> Sequence[Finding]:
    try:
        for name in _SOME_ZONES:
            ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        seen = f"{error.args[0]}: budgets and quiet hours need them"
        return [Finding.failed(seen, "Install the system's tzdata (Debian: apt-get install tzdata), or `pip install tzdata`.")]
    return [Finding.ok("known")]


def _look_at_disk() -> Sequence[Finding]:
    findings = []
    for what, folder in (("DATA_DIR", settings.ENVIRONMENT.data_dir), ("temporary files", Path(os.environ.get("TMPDIR", "/tmp")))):  # noqa: S108 - looked at only
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        seen, remedy = f"{free // _MB:,} MB free at {there}", "Delete what is not needed there, or give it more room."
        if free < _FULL_BYTES:
            findings.append(Finding.failed(seen, remedy, about=what))
        elif free < _LITTLE_BYTES:
            findings.append(Finding.warning(seen, remedy, about=what))
        else:
            findings.append(Finding.ok(seen, about=what))
    return findings


def _look_at_open_files() -> Sequence[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each turn is two connections, one to the client and one to the model.
    wanted = 2 * settings.CHAT_MAX_CONCURRENT_TURNS + _FILES_BESIDE_TURNS
    seen = f"{limit:,} a process; {settings.CHAT_MAX_CONCURRENT_TURNS:,} turns at once need {wanted:,}"
    if resource.RLIM_INFINITY != limit < wanted:
        return [Finding.warning(seen, f"ulimit -n {wanted} (systemd: LimitNOFILE={wanted}), or lower CHAT_MAX_CONCURRENT_TURNS.")]
    return [Finding.ok(seen)]


def _look_at_memory() -> Sequence[Finding]:
    usable, wanted = usable_bytes(), settings.WEB_CONCURRENCY * WORKER_BYTES + RESERVED_BYTES
    seen = f"{usable // _MB:,} MB; WEB_CONCURRENCY={settings.WEB_CONCURRENCY} needs about {wanted // _MB:,}"
    if wanted > usable:
        return [Finding.warning(seen, "Lower WEB_CONCURRENCY, or give this machine more memory.")]
    return [Finding.ok(seen)]
