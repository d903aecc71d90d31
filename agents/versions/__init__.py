"""What may happen to an agent's versions: drafting, publishing, comparing, and living in files.

content      what a version says, as a plain value; the rest of this package compares and copies through it
drafts       create an agent, start or discard its draft
publishing   make a draft live, or go back to an earlier version
comparison   what differs between two versions
documents    an agent as one YAML or JSON file: `schema` says what it may hold, `formats` reads and writes the text
live         the version that answers now, as every process sees it
"""
