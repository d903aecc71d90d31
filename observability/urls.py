from django.urls import path

from observability import views

urlpatterns = [
    path("health", views.health, name="health"),
    path("metrics", views.metrics, name="metrics"),
    path("health/ready", views.ready, name="ready"),
]
