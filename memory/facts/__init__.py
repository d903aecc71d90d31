"""Facts: what people told of themselves, kept so that the newest holds.

`rules` reads statements from a person's words, `settling` decides which of them still hold, `storing` keeps them, and `reading`
lets a model read what rules cannot.
"""
