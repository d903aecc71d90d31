from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from agents.admin.cost import cost_page
from agents.rest.views import ChatView
from chatbot_site.error_pages import answer_nothing_here, explain_error
from chatbot_site.signing_in import sign_in

urlpatterns = [
    # First, and in no list of its own: routes are tried one after the other, and each list is a search within the search.
    path("api/chat/<str:agent>", ChatView.as_view(), name="chat"),
    path("", include("agents.urls")),
    # The theme's search over its menu, which no page here offers: it answers 500, because its results cannot be cached as JSON.
    path("admin/search/", answer_nothing_here),
    path("admin/cost/", admin.site.admin_view(cost_page), name="cost"),
    path("admin/login/", sign_in),
    path("admin/", admin.site.urls),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    # DRF's answer to OPTIONS would be rendered with the page's template, and fail.
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema", http_method_names=["get", "head"]), name="docs"),
    path("errors/<slug:code>", explain_error, name="error"),
    path("", include("observability.urls")),
]

handler400 = "chatbot_site.problems.bad_request"
handler403 = "chatbot_site.problems.forbidden"
handler404 = "chatbot_site.problems.not_found"
handler500 = "chatbot_site.problems.server_error"
