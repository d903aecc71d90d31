"""Alerts: what is wrong, told to people once, and that it is over (docs/alerts.md).

kinds      what is watched: each kind of trouble with its words and defaults     finding    the questions to the database
incidents  what is wrong becomes an incident, and an incident notices            sending    notices go out, again until they are taken
addresses  what a target's address means    delivery    one message to one target    courier    the process in which Apprise runs
outage     PostgreSQL itself is away        watching    all of it, in the worker
standing   how it stands, for pages elsewhere
"""
