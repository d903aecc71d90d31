from django.urls import path

from agents.rest import agent_memories, conversations, keys, memories, usage, users, views
from agents.rest.tokens import TokenView

urlpatterns = [
    path("agents", views.AgentListView.as_view(), name="agents"),
    path("agents/<str:agent>", views.AgentView.as_view(), name="agent"),
    path("agents/<str:agent>/memories", agent_memories.AgentMemoriesView.as_view(), name="agent-memories"),
    path("agents/<str:agent>/memories/<int:id>", agent_memories.AgentMemoryView.as_view(), name="agent-memory"),
    path("users/<str:user>", users.UserView.as_view(), name="user"),
    path("users/<str:user>/export", users.ExportView.as_view(), name="export"),
    path("users/<str:user>/memories", memories.UserMemoriesView.as_view(), name="memories"),
    path("users/<str:user>/memories/<int:id>", memories.UserMemoryView.as_view(), name="memory"),
    path("erasures/<uuid:id>", users.ErasureView.as_view(), name="erasure"),
    path("conversations/<path:session_id>/messages", conversations.MessagesView.as_view(), name="messages"),
    path("conversations/<path:session_id>", conversations.ConversationView.as_view(), name="conversation"),
    path("usage", usage.UsageView.as_view(), name="usage"),
    path("keys", keys.KeysView.as_view(), name="keys"),
    path("keys/<str:id>", keys.KeyView.as_view(), name="key"),
    path("keys/<str:id>/rotate", keys.KeyRotationView.as_view(), name="rotate"),
    path("tokens", TokenView.as_view(), name="tokens"),
]
