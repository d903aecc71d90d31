from django.apps import AppConfig


class AgentsConfig(AppConfig):
    name = "agents"
    verbose_name = "Chatbots"

    def ready(self) -> None:
        from memory.api import describe_people_by

        from . import checks  # noqa: F401 - registers the system checks
        from .access.naming import describe_people

        describe_people_by(describe_people)
