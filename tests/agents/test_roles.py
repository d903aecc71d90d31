"""What each role may do, by its permissions; the admin's own tests drive its pages."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission

from agents import roles
from tests.factories import make_user


@pytest.mark.parametrize(
    ("role", "permission", "may"),
    [
        ("editor", "agents.view_agent", True),
        ("editor", "agents.add_agent", True),
        ("editor", "agents.change_agent", True),
        ("editor", "agents.delete_agent", False),
        ("editor", "agents.change_agentversion", True),
        ("editor", "agents.delete_versionfallback", True),
        ("editor", "agents.view_publication", True),
        ("editor", "agents.change_publication", False),
        ("editor", "agents.view_provider", False),
        ("editor", "agents.change_provider", False),
        ("editor", "memory.view_turn", False),
        ("editor", "memory.view_subject", False),
        ("editor", "memory.change_memoryowner", True),
        ("editor", "auth.view_user", False),
        ("operator", "agents.view_agent", True),
        ("operator", "agents.change_agent", False),
        ("operator", "agents.add_agent", False),
        ("operator", "agents.change_agentversion", False),
        ("operator", "agents.view_provider", True),
        ("operator", "agents.add_provider", True),
        ("operator", "agents.change_provider", True),
        ("operator", "agents.delete_provider", False),
        ("operator", "agents.view_apikey", True),
        ("operator", "agents.add_apikey", True),
        ("operator", "agents.change_apikey", True),
        ("operator", "agents.delete_apikey", False),
        ("operator", "agents.change_keyowner", True),
        ("operator", "agents.delete_keyowner", False),
        ("editor", "agents.view_apikey", False),
        ("editor", "agents.add_apikey", False),
        ("operator", "memory.view_turn", True),
        ("operator", "memory.view_conversation", True),
        ("operator", "memory.change_turn", False),
        ("operator", "memory.change_subject", True),
        ("operator", "memory.delete_subject", True),
        ("operator", "memory.view_memoryowner", True),
        ("operator", "memory.change_memoryowner", False),
        ("operator", "auth.view_user", True),
        ("operator", "auth.change_user", False),
        ("operator", "auth.change_group", False),
        ("operator", "sessions.view_session", False),
        ("superuser", "agents.delete_provider", True),
        ("superuser", "auth.change_user", True),
        ("", "agents.view_agent", False),
    ],
)
def test_a_role_may(db: None, role: str, permission: str, may: bool) -> None:
    app, codename = permission.split(".")
    assert Permission.objects.filter(content_type__app_label=app, codename=codename).exists(), "a permission that exists"
    assert make_user(role=role).has_perm(permission) is may


def test_operators_change_nothing_else(db: None) -> None:
    granted = make_user(role="operator").get_all_permissions()
    assert {name for name in granted if ".view_" not in name} == roles.OPERATOR_CHANGES


def test_editors_have_no_other_rights(db: None) -> None:
    assert make_user(role="editor").get_all_permissions() == roles.EDITOR_PERMISSIONS


def test_setting_up_again_takes_back_what_somebody_added_and_leaves_other_groups(db: None) -> None:
    roles.create_groups()
    extra = Permission.objects.get(content_type__app_label="auth", codename="delete_user")
    Group.objects.get(name=roles.EDITORS).permissions.add(extra)
    own = Group.objects.create(name="our own")
    own.permissions.add(extra)
    roles.create_groups()
    assert not Group.objects.get(name=roles.EDITORS).permissions.filter(pk=extra.pk).exists()
    assert own.permissions.filter(pk=extra.pk).exists()


def test_a_permission_that_is_missing_is_named(db: None) -> None:
    Permission.objects.filter(codename="view_publication").delete()
    with pytest.raises(LookupError, match="view_publication"):
        roles.create_groups()
