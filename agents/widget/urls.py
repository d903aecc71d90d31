from django.urls import path

from agents.widget import views

urlpatterns = [
    path("", views.list_agents, name="chat-index"),
    path("chat/<slug:slug>", views.chat_page, name="chat-page"),
]
