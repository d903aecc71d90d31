from __future__ import annotations


def test_the_type_of_a_problem_leads_to_a_page_that_explains_it(client):
    page = client.get("/errors/agent-not-found")
    assert page.status_code == 200
    assert "Agent not found" in page.content.decode()
    assert "GET /api/agents" in page.content.decode()


def test_an_unknown_code_is_404(client):
    assert client.get("/errors/no-such-code").status_code == 404
