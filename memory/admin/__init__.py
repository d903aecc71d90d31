"""The admin for people who look into what was said and what is remembered. Django finds it by this package's name.

conversations   transcripts                       people      the list of people
turns           single turns                      person      one person, agent by agent
recollections   what turns recalled               erasing     erasing a person, and receipts
memories        the list of an owner's memories   knowledge   collections, and the addresses of memories' pages
changing        adding, correcting, forgetting    upkeep      what was forgotten by itself
"""

from . import conversations, erasing, knowledge, people, turns, upkeep

__all__ = ["conversations", "erasing", "knowledge", "people", "turns", "upkeep"]
