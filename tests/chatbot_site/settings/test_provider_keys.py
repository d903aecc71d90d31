"""Keys of any vendor may stand in the .env file."""

from __future__ import annotations

from pathlib import Path

from chatbot_site.settings.environment import provider_keys


def test_keys_are_read_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("MISTRAL_API_KEY=abc\nEMPTY_API_KEY=\nSECRET_KEY=hidden\nDATABASE_URL=postgres://x\nQUOTED_API_KEY='d e'\n")
    assert provider_keys(file, tmp_path / "absent") == {"MISTRAL_API_KEY": "abc", "QUOTED_API_KEY": "d e"}
