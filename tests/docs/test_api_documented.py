"""Every route outside the admin stands in docs/api.md, and every path of the schema is one of them."""

from __future__ import annotations

import re
from pathlib import Path

from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
DOCUMENTED = set(re.findall(r"^\| `(?:[A-Z]+ )?(/[^`]*)` \|", PAGE, re.MULTILINE))


def _routes(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> set[str]:
    found = set()
    for pattern in patterns:
        path = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(pattern.pattern))
        if path.startswith("/admin/"):
            found.add("/admin/")
        elif isinstance(pattern, URLResolver):
            found |= _routes(pattern.url_patterns, path)
        else:
            found.add(path)
    return found


def test_every_route_is_documented_and_every_documented_route_exists():
    assert _routes(get_resolver().url_patterns) == DOCUMENTED


def test_the_schema_has_no_path_that_the_page_lacks():
    schema = SchemaGenerator().get_schema(request=None, public=True)
    assert set(schema["paths"]) <= DOCUMENTED
    assert "/api/chat/{agent}" in schema["paths"]
