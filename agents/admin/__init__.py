"""The admin for people who look after agents without programming. Django finds it by this package's name.

agents       the list, creating, settings, deleting      drafts       the edit page
history      versions, publishing, rolling back           documents    import and export
trying       the chat page on the draft                   providers    addresses and keys
people       users and roles                              overview     the start page
probing      "Test the connection" of a provider           keys         API keys and their owners
cost         what was spent and saved
"""

from . import agents, keys, people, providers

__all__ = ["agents", "keys", "people", "providers"]
