"""Who answers, and how: agents and their versions, providers, the chat turn, and the pages that show them."""
