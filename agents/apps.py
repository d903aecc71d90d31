from django.apps import AppConfig


class AgentsConfig(AppConfig):
    name = "agents"
    verbose_name = "Chatbots"

    def ready(self) -> None:
        from memory.api import describe_people_by, register_eraser
        from observability.api import name_things_by, register_models_in_use

        from . import checks  # noqa: F401 - registers the system checks
        from .access.choices import list_agents, list_keys
        from .access.naming import describe_people
        from .chat.likeness import forget_questions
        from .chat.replies import forget_replies
        from .doctor import register_agents_examinations
        from .versions.in_use import list_models_in_use

        describe_people_by(describe_people)
        register_eraser("replies", forget_replies)
        register_eraser("similar_questions", forget_questions)
        register_agents_examinations()
        register_models_in_use(list_models_in_use)
        name_things_by(agents=list_agents, keys=list_keys)
