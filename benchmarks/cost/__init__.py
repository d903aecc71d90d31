"""What protection and reports cost, and that budgets hold.

    python -m benchmarks.cost                          everything; filling the ledger takes most of the time
    python -m benchmarks.cost --rows 200000 --quick    the same, smaller
    python -m benchmarks.cost --only race              one part: reports, race, cached, protection

`reports` times reports over a ledger of many rows (`ledger`), `race` lets 64 callers at once spend one small budget, `cached`
drives cached replies beside a bare Django view that asks Redis once (`bare`), `protection` compares uncached calls with and
without limits, budgets and cache. `world` makes the agents. Processes, load and upstream are those of `benchmarks.chat`.
"""
