from django.apps import AppConfig


class AgentsConfig(AppConfig):
    name = "agents"
    verbose_name = "Chatbots"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the system checks
