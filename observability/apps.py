from django.apps import AppConfig


class ObservabilityConfig(AppConfig):
    name = "observability"
    verbose_name = "Cost and operation"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from observability.alerts.kinds import add_absent_rules
        from observability.alerts.watching import register_alert_queue
        from observability.doctor.alert_targets import register_alert_examination
        from observability.doctor.postgresql import register_postgresql_examinations
        from observability.doctor.redis import register_redis_examinations
        from observability.doctor.work import register_work_examinations
        from observability.sentry import start_reporting
        from observability.stores import register_store_checks
        from observability.tracing import start_tracing

        register_store_checks()
        register_alert_queue()
        register_postgresql_examinations()
        register_redis_examinations()
        register_work_examinations()
        register_alert_examination()
        post_migrate.connect(add_absent_rules, sender=self)
        start_reporting()
        start_tracing()
