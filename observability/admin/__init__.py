"""The admin for what things cost, how much anybody may use, and what is wrong. Django finds it by this package's name.

prices     what models cost        limits     requests and tokens a minute
budgets    what may be spent       attempts   the ledger, to look at
doctor     what is amiss with the set-up
levels     how much is logged      incidents  what is wrong, and was
alert_rules, alert_targets   when to tell, and whom
"""

from . import alert_rules, alert_targets, attempts, budgets, doctor, incidents, levels, limits, prices

__all__ = ["alert_rules", "alert_targets", "attempts", "budgets", "doctor", "incidents", "levels", "limits", "prices"]
