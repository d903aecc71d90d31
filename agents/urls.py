from django.urls import include, path

urlpatterns = [
    path("api/", include("agents.rest.urls")),
    path("", include("agents.widget.urls")),
]
