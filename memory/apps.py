from django.apps import AppConfig


class MemoryConfig(AppConfig):
    name = "memory"
    verbose_name = "What was said"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the system checks
        from .health import register_memory_checks

        register_memory_checks()
