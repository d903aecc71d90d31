from django.apps import AppConfig


class MemoryConfig(AppConfig):
    name = "memory"
    verbose_name = "What was said"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the system checks
        from .cached_vectors import forget_cached_vectors
        from .elsewhere import register_eraser
        from .health import register_memory_checks

        register_memory_checks()
        register_eraser("cached_vectors", forget_cached_vectors)
