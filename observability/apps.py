from django.apps import AppConfig


class ObservabilityConfig(AppConfig):
    name = "observability"
    verbose_name = "Cost"

    def ready(self) -> None:
        from observability.sentry import start_reporting
        from observability.stores import register_store_checks
        from observability.tracing import start_tracing

        register_store_checks()
        start_reporting()
        start_tracing()
