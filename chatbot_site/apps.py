from django.apps import AppConfig


class ChatbotSiteConfig(AppConfig):
    name = "chatbot_site"
    verbose_name = "This server"

    def ready(self) -> None:
        from .doctor import register_site_examinations
        from .stamp import guard_connections

        guard_connections()
        register_site_examinations()
