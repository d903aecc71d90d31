from django.apps import AppConfig


class MemoryConfig(AppConfig):
    name = "memory"
    verbose_name = "What was said"

    def ready(self) -> None:
        from observability.api import register_models_in_use

        from . import checks  # noqa: F401 - registers the system checks
        from .cached_vectors import forget_cached_vectors
        from .doctor import register_memory_examinations
        from .elsewhere import register_eraser
        from .embedders.configured import list_models_in_use
        from .health import register_memory_checks
        from .waiting import register_queues

        register_memory_checks()
        register_memory_examinations()
        register_queues()
        register_eraser("cached_vectors", forget_cached_vectors)
        register_models_in_use(list_models_in_use)
