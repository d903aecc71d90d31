from django.apps import AppConfig


class ObservabilityConfig(AppConfig):
    name = "observability"
    verbose_name = "Cost"

    def ready(self) -> None:
        from observability.stores import register_store_checks

        register_store_checks()
