from django.urls import path

from agents.rest import views
from agents.rest.tokens import TokenView

urlpatterns = [
    path("agents", views.AgentListView.as_view(), name="agents"),
    path("agents/<str:agent>", views.AgentView.as_view(), name="agent"),
    path("chat/<str:agent>", views.ChatView.as_view(), name="chat"),
    path("tokens", TokenView.as_view(), name="tokens"),
]
