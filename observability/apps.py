from django.apps import AppConfig


class ObservabilityConfig(AppConfig):
    name = "observability"
    verbose_name = "Cost"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from observability.alerts.kinds import add_absent_rules
        from observability.alerts.watching import register_alert_queue
        from observability.sentry import start_reporting
        from observability.stores import register_store_checks
        from observability.tracing import start_tracing

        register_store_checks()
        register_alert_queue()
        post_migrate.connect(add_absent_rules, sender=self)
        start_reporting()
        start_tracing()
