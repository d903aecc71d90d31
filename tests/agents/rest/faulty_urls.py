"""The project's routes, and two whose views break."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from chatbot_site.urls import handler400, handler403, handler404, handler500
from chatbot_site.urls import urlpatterns as real_urlpatterns

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]


async def break_in_the_api(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("canary-in-the-exception")


def break_in_a_page(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("canary-in-the-exception")


urlpatterns = [path("api/faulty", break_in_the_api), path("faulty", break_in_a_page), *real_urlpatterns]
