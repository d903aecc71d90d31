"""`manage.py agents list | export | apply`, as a team with prompts in git uses it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agents.models import Agent
from agents.versions.drafts import draft_of, start_draft
from agents.versions.formats import parse
from tests.factories import make_agent, make_provider, make_user, unique


def run(*arguments: object) -> str:
    output = io.StringIO()
    call_command("agents", *map(str, arguments), stdout=output, stderr=io.StringIO())
    return output.getvalue()


@pytest.fixture
def agent(db: None) -> Agent:
    return make_agent(system_prompt="Be kind.\nBe brief.\n", greeting="Hello", provider=make_provider())


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_the_list_shows_what_is_live_and_drafted(agent: Agent) -> None:
    start_draft(agent, author=None)
    (line,) = [line for line in run("list").splitlines() if line.startswith(f"{agent.slug} ")]
    assert line.split()[1:5] == ["v1", "v2", "public", "yes"]


def test_export_and_apply_without_an_edit_change_nothing(agent: Agent, tmp_path: Path) -> None:
    run("export", agent.slug, "--to", tmp_path / "new" / "folder")
    file = tmp_path / "new" / "folder" / f"{agent.slug}.yaml"
    assert "Be kind.\n" in file.read_text(encoding="utf-8")
    assert run("apply", file.parent, "--dry-run") == f"{agent.slug}: unchanged (version 1)\n"


def test_an_edited_file_goes_live(agent: Agent, tmp_path: Path) -> None:
    run("export", agent.slug, "--to", tmp_path)
    edit(tmp_path / f"{agent.slug}.yaml", "Be brief.", "Be very brief.")
    with pytest.raises(SystemExit) as caught:
        run("apply", tmp_path, "--dry-run", "--publish")
    assert caught.value.code == 2
    assert agent.versions.count() == 1
    output = run("apply", tmp_path, "--publish")
    assert f"{agent.slug}: published (version 2)" in output
    assert "    - Be brief.\n    + Be very brief.\n" in output
    agent.refresh_from_db()
    assert agent.live_version is not None
    assert agent.live_version.system_prompt == "Be kind.\nBe very brief.\n"
    assert "unchanged" in run("apply", tmp_path, "--publish")
    assert agent.versions.count() == 2


def test_without_publish_a_draft_is_written(agent: Agent, tmp_path: Path) -> None:
    run("export", agent.slug, "--to", tmp_path)
    edit(tmp_path / f"{agent.slug}.yaml", "greeting: Hello", "greeting: Good day")
    assert f"{agent.slug}: drafted (version 2)" in run("apply", tmp_path)
    draft = draft_of(agent)
    assert draft is not None
    assert draft.greeting == "Good day"
    assert "greeting: Good day" in run("export", agent.slug, "--draft")
    assert "greeting: Hello" in run("export", agent.slug)


def test_one_wrong_file_leaves_all_as_they_were(agent: Agent, tmp_path: Path) -> None:
    new = unique("new")
    (tmp_path / "a.yaml").write_text(f"slug: {new}\nname: New\nsystem_prompt: Hello\n")
    (tmp_path / "b.json").write_text(json.dumps({"slug": unique("other"), "name": "B", "system_prompt": "x", "provider": "no-such"}))
    with pytest.raises(CommandError, match=r"b\.json: provider: There is no provider 'no-such'"):
        run("apply", tmp_path)
    assert not Agent.objects.filter(slug=new).exists()


def test_an_incomplete_agent_names_its_file(agent: Agent, tmp_path: Path) -> None:
    provider = make_provider(default_model="")
    (tmp_path / "a.yaml").write_text(f"slug: {unique('new')}\nname: New\nsystem_prompt: Hello\nprovider: {provider.slug}\n")
    with pytest.raises(CommandError, match=r"a\.yaml: Name a model"):
        run("apply", tmp_path, "--publish")


def test_a_colleagues_draft_needs_a_word(agent: Agent, tmp_path: Path) -> None:
    run("export", agent.slug, "--to", tmp_path)
    edit(tmp_path / f"{agent.slug}.yaml", "greeting: Hello", "greeting: Good day")
    start_draft(agent, author=make_user())
    agent.versions.filter(published_at=None).update(greeting="Theirs")
    with pytest.raises(CommandError, match="--replace-draft"):
        run("apply", tmp_path)
    assert "drafted (version 2)" in run("apply", tmp_path, "--replace-draft")


def test_json_goes_the_same_way(agent: Agent, tmp_path: Path) -> None:
    run("export", agent.slug, "--to", tmp_path, "--format", "json")
    text = (tmp_path / f"{agent.slug}.json").read_text(encoding="utf-8")
    assert json.loads(text)["greeting"] == "Hello"
    assert text == run("export", agent.slug, "--format", "json")
    assert "unchanged" in run("apply", tmp_path)


def test_one_file_can_come_from_the_standard_input(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = unique("piped")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"slug: {slug}\nname: Piped\nsystem_prompt: Hello\n"))
    assert f"{slug}: created (version 1)" in run("apply", "-")


def test_exports_are_printed_one_after_the_other(agent: Agent) -> None:
    other = make_agent()
    first, second = run("export", agent.slug, other.slug).split("---\n")
    assert (parse(first).slug, parse(second).slug) == (agent.slug, other.slug)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "no-such-agent"], "There is no agent no-such-agent"),
        (["apply", "{tmp}/none.yaml"], "No such file"),
        (["apply", "{tmp}/empty"], "there is no file that ends in"),
        (["apply", "{tmp}/latin.yaml"], "no UTF-8 text"),
        (["apply", "{tmp}/same"], "describes the agent twin too"),
        (["apply", "{tmp}/broken.yaml"], r"broken\.yaml: This is no valid YAML in line 3"),
        (["export", "--to", "{tmp}/latin.yaml"], "File exists"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(db: None, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "same").mkdir()
    for name in ("a.yaml", "b.yml"):
        (tmp_path / "same" / name).write_text("slug: twin\nname: Twin\nsystem_prompt: x\n")
    (tmp_path / "latin.yaml").write_bytes("slug: \xe9".encode("latin-1"))
    (tmp_path / "broken.yaml").write_text("slug: a\nname: [\n")
    with pytest.raises(CommandError, match=words):
        run(*[argument.replace("{tmp}", str(tmp_path)) for argument in arguments])


def test_control_characters_never_reach_the_terminal(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f'slug: {agent.slug}\nname: "\\e[31mred"\nsystem_prompt: "a\\e]0;title\\a"\ngreeting: "\\x9b31m"\n')
    output = run("apply", tmp_path)
    assert not any((ord(character) < 32 and character != "\n") or 127 <= ord(character) < 160 for character in output)
    assert r"\x1b[31mred" in output


def test_a_very_large_file_is_refused_without_being_read_whole(db: None, tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(CommandError, match="more than 1,000,000 characters"):
        run("apply", tmp_path / "huge.yaml")


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    arguments: list[Any] = ["agents", "apply", "--help"]
    with pytest.raises(SystemExit):
        call_command(*arguments)
    assert "exit code 2" in capsys.readouterr().out
