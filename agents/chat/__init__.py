"""The chat turn: `answer.answer()` is its only entry, for the API, the chat page and the admin's Try it alike."""
