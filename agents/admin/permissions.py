"""Who may do what in the admin. The groups `editors` and `operators` get these permissions from `manage.py setup`."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest

Check = Callable[[HttpRequest], bool]


def _has(permission: str) -> Check:
    def check(request: HttpRequest) -> bool:
        return request.user.is_active and request.user.is_staff and request.user.has_perm(permission)

    check.__doc__ = f"Whether the person who asks has `{permission}`."
    return check


may_view_agents = _has("agents.view_agent")
may_edit_agents = _has("agents.change_agent")
may_add_agents = _has("agents.add_agent")
may_view_providers = _has("agents.view_provider")
may_change_providers = _has("agents.change_provider")
may_view_keys = _has("agents.view_apikey")
may_view_key_owners = _has("agents.view_keyowner")
may_view_cost = _has("observability.view_usageday")
may_view_conversations = _has("memory.view_conversation")
may_view_turns = _has("memory.view_turn")
may_view_upkeep = _has("memory.view_upkeeprun")
may_view_memories = _has("memory.view_subject")
may_view_knowledge = _has("memory.view_memoryowner")
may_change_knowledge = _has("memory.change_memoryowner")
may_view_erasures = _has("memory.view_erasure")
may_view_people = _has("auth.view_user")
may_view_groups = _has("auth.view_group")
may_view_budgets = _has("observability.view_budget")
may_add_budgets = _has("observability.add_budget")
may_view_limits = _has("observability.view_limit")
may_view_prices = _has("observability.view_modelprice")
may_view_ledger = _has("observability.view_attempt")
may_view_incidents = _has("observability.view_incident")
may_view_alert_rules = _has("observability.view_alertrule")
may_view_alert_targets = _has("observability.view_alerttarget")
may_view_doctor = _has("observability.view_doctorreport")
may_view_log_level = _has("observability.view_loglevel")
