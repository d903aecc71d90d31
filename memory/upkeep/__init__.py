"""Upkeep: keeps memory as small as each agent's version says, and no smaller.

    policy         what an agent's version asks for
    memories       which memories are too old or beyond the cap, and their end
    conversations  conversations that are over, and their end
    remains        people of whom nothing is left
    run            one pass over all of it, with its progress
    schedule       a pass every hour, by one worker at a time

Nothing is queued: a pass looks for what is due. One that is killed is taken up by the next.
"""
