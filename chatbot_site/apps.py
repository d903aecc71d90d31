from django.apps import AppConfig


class ChatbotSiteConfig(AppConfig):
    name = "chatbot_site"
    verbose_name = "This server"

    def ready(self) -> None:
        from .stamp import guard_connections

        guard_connections()
