"""deploy/alloy/config.alloy is well formed, wires its parts to each other, and reads fields that the log has.

Alloy itself is in no package registry that tests may use, so nothing here has run it.
"""

from __future__ import annotations

import re

import yaml

from chatbot_site.settings.environment import PROJECT_DIR

TEXT = (PROJECT_DIR / "deploy" / "alloy" / "config.alloy").read_text()
CODE = re.sub(r"//.*", "", re.sub(r'"(?:[^"\\]|\\.)*"', lambda found: found[0].replace("//", "::"), TEXT))


def test_its_blocks_are_closed() -> None:
    depth = 0
    for character in re.sub(r'"(?:[^"\\]|\\.)*"', '""', CODE):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0


def test_its_parts_lead_to_each_other() -> None:
    parts = {f"{kind}.{name}" for kind, name in re.findall(r'^([a-z_.]+) "(\w+)" \{', CODE, re.MULTILINE)}
    assert parts == {"loki.relabel.units", "loki.source.journal.chatbot", "loki.process.chatbot", "loki.write.default"}
    named = set(re.findall(r"\b((?:loki)\.[\w.]+)\.(?:receiver|rules)\b", CODE))
    assert named == parts - {"loki.source.journal.chatbot"}


def test_it_reads_fields_that_the_log_has() -> None:
    docs = (PROJECT_DIR / "docs" / "logs.md").read_text()
    fields = re.findall(r'^ +(\w+) += "(\w+)",$', CODE, re.MULTILINE)
    assert len(fields) >= 7
    for name, source in fields:
        assert name == source
        assert f"| `{name}` |" in docs
    for name in re.findall(r'^ +(\w+) += "",$', CODE, re.MULTILINE):
        assert (name, name) in fields


def test_ids_are_no_labels() -> None:
    [labels] = re.findall(r"stage\.labels \{\s*values = \{([^}]*)\}", CODE)
    assert set(re.findall(r"(\w+) +=", labels)) == {"level", "event", "agent", "outcome"}


def test_it_finds_what_compose_makes() -> None:
    project = yaml.safe_load((PROJECT_DIR / "deploy" / "docker" / "compose.yaml").read_text())["name"]
    assert f'"com.docker.compose.project={project}"' in TEXT
