"""The wiring: settings, URLs, the ASGI entry, and the embedded services of a fresh machine."""
