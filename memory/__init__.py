"""What was said and what is known: people, conversations and turns. Other apps use `memory.api` only."""
