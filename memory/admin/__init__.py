"""The admin for people who look into what was said and what is remembered. Django finds it by this package's name.

conversations   transcripts                    turns        single turns
"""

from . import conversations, turns

__all__ = ["conversations", "turns"]
