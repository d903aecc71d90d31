"""The pages on which people chat: a list of the public agents, and a chat page for each."""
