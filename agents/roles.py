"""The roles: who may do what in the admin. `manage.py setup` makes the groups and keeps their permissions as written here.

    editors     agents: create, edit, try, publish, roll back; what agents know for everybody, shared or not. No providers, no keys,
                no conversations, no memories of people.
    operators   read everything; create and change providers and their keys; correct and forget what is remembered of people, and
                erase them; make, change and revoke API keys; set prices, budgets, limits and alerts; have the doctor examine
                everything; change the log's level, and let it hold an agent's messages for a while. No agents otherwise.
    superuser   everything, people and roles included.

A role is a permission `agents.view_agent` and the like, never a group's name: an installation may make groups of its own.
"""

from __future__ import annotations

from typing import Final

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

EDITORS: Final = "editors"
OPERATORS: Final = "operators"

# Publishing, rolling back and trying a draft all need `change_agent`: one right, one thing to explain.
EDITOR_PERMISSIONS: Final = frozenset(
    {
        "agents.view_agent",
        "agents.add_agent",
        "agents.change_agent",
        "agents.view_agentversion",
        "agents.add_agentversion",
        "agents.change_agentversion",
        "agents.delete_agentversion",  # discard a draft; the database refuses everything else
        "agents.view_versionfallback",
        "agents.add_versionfallback",
        "agents.change_versionfallback",
        "agents.delete_versionfallback",
        "agents.view_publication",
        # Knowledge for everybody: shared collections, and agents' own.
        "memory.view_memoryowner",
        "memory.add_memoryowner",
        "memory.change_memoryowner",
        "memory.delete_memoryowner",
    }
)
OPERATOR_CHANGES: Final = frozenset(
    {
        "agents.add_provider",
        "agents.change_provider",
        "agents.add_keyowner",
        "agents.change_keyowner",
        "agents.add_apikey",
        "agents.change_apikey",
        *(
            f"observability.{act}_{model}"
            for act in ("add", "change", "delete")
            for model in ("modelprice", "budget", "limit", "alerttarget")
        ),
        "observability.change_alertrule",
        "observability.add_loglevel",
        "observability.add_doctorreport",  # have the doctor examine everything
        # People and what is remembered of them: change is to add, correct, pin and forget; delete is to erase somebody.
        "memory.change_subject",
        "memory.delete_subject",
    }
)
# Sessions hold sign-ins: nobody reads them.
UNREADABLE: Final = frozenset({"sessions.view_session"})


def create_groups() -> None:
    """Create the groups, and give each exactly its permissions. Groups of other names are left alone."""
    for name, permissions in ((EDITORS, _editors()), (OPERATORS, _operators())):
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set(permissions)


def _editors() -> list[Permission]:
    return _named(EDITOR_PERMISSIONS)


def _operators() -> list[Permission]:
    readable = Permission.objects.filter(codename__startswith="view_").select_related("content_type")
    return [permission for permission in readable if _label(permission) not in UNREADABLE] + _named(OPERATOR_CHANGES)


def _named(labels: frozenset[str]) -> list[Permission]:
    wanted = Q()
    for label in labels:
        app, codename = label.split(".")
        wanted |= Q(content_type__app_label=app, codename=codename)
    found = list(Permission.objects.filter(wanted).select_related("content_type"))
    if absent := labels - {_label(permission) for permission in found}:
        raise LookupError(f"no such permission: {', '.join(sorted(absent))}; run `manage.py migrate` first")
    return found


def _label(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"
