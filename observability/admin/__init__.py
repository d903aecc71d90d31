"""The admin for what things cost and how much anybody may use. Django finds it by this package's name.

prices     what models cost        limits     requests and tokens a minute
budgets    what may be spent       attempts   the ledger, to look at
levels     how much is logged
"""

from . import attempts, budgets, levels, limits, prices

__all__ = ["attempts", "budgets", "levels", "limits", "prices"]
