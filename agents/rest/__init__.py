"""The HTTP API, as DRF views: thin rooms that turn requests into questions and events into answers."""
