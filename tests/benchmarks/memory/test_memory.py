"""The memory benchmark: what it reads, what it computes, and that it measures the server's own recall."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from benchmarks.memory.baselines import BM25, fuse, outcome
from benchmarks.memory.conversations import Unreadable, read
from benchmarks.memory.figures import NAMES, Outcome, mean, score
from tests.live_server import PROJECT_DIR

SAID = {
    1: ("9:05 am on 3 March, 2024", ["Ida: Hi Tom!", "Tom: Hello Ida.", "Ida: I adopted a parrot called Pico.", "Tom: Does Pico talk?"]),
    2: ("12:30 pm on 1 April, 2024", ["Tom: I broke my left arm while skating.", "Ida: Oh no, poor you!", "Tom: It will take six weeks."]),
    10: ("8 May, 2024", ["Ida: My exhibition opens in Bergen next week.", "Tom: I will bring my sister Lea."]),
}
QUESTIONS = [
    ("What is Ida's parrot called?", ["D1:3"], 4),
    ("What did Tom break?", ["D2:1"], 4),
    ("Where does Ida's exhibition open, and who comes?", ["D10:1; D10:2"], 1),
    ("What is Tom allergic to?", [], 5),
    ("What does nobody know?", ["D9:9"], 5),
]


@pytest.fixture
def file(tmp_path):
    conversation = {"speaker_a": "Ida", "speaker_b": "Tom"}
    for session, (date, lines) in SAID.items():
        turns = [dict(zip(("speaker", "text"), line.split(": ", 1), strict=True)) for line in lines]
        conversation[f"session_{session}_date_time"] = date
        conversation[f"session_{session}"] = [turn | {"dia_id": f"D{session}:{place}"} for place, turn in enumerate(turns, 1)]
    conversation["session_1"][2]["blip_caption"] = "a photo of a green parrot on a shelf"
    questions = [{"question": text, "evidence": evidence, "category": category} for text, evidence, category in QUESTIONS]
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{"sample_id": "one", "conversation": conversation, "qa": questions}]))
    return path


def test_conversations_are_read_in_order_with_dates_pictures_and_repaired_labels(file):
    [conversation] = read(file)
    assert [line.label for line in conversation.lines] == ["D1:1", "D1:2", "D1:3", "D1:4", "D2:1", "D2:2", "D2:3", "D10:1", "D10:2"]
    assert [line.speaker for line in conversation.lines] == [0, 1, 0, 1, 1, 0, 1, 0, 1]
    assert {line.session: line.said_at for line in conversation.lines} == {
        1: datetime(2024, 3, 3, 9, 5, tzinfo=UTC),
        2: datetime(2024, 4, 1, 12, 30, tzinfo=UTC),
        10: datetime(2024, 5, 8, tzinfo=UTC),
    }
    assert conversation.lines[2].text == "I adopted a parrot called Pico.\na green parrot on a shelf"
    assert [(question.category, question.evidence) for question in conversation.questions] == [("4", {2}), ("4", {4}), ("1", {7, 8})]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"conversation": {}}]', '[{"conversation": {"speaker_a": "A", "speaker_b": "B"}}]'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(Unreadable, match="cannot be read as conversations"):
        read(path)
    with pytest.raises(Unreadable):
        read(tmp_path / "absent.json")


def test_figures():
    found = Outcome(ranked=[9, 3, 8, 7, 6, 5, 1], within=(set(), {3}, {3, 1}))
    assert score(found, {3, 1}) == (0.5, 1, 1, 0.5, 0, 0.5, 1)
    assert score(found, {4}) == (0, 0, 0, 0, 0, 0, 0)
    assert mean([score(found, {3, 1}), score(found, {4})]) == dict(zip(NAMES, [25, 50, 50, 0.25, 0, 25, 50], strict=True))


def test_baselines_rank_as_their_names_say():
    scores = BM25(["Tom, the red fox", "a red house, red doors", "nothing"], names=["Tom"]).scores("Red foxes of Tom?")
    assert scores.argmax() == 0
    assert scores[1] > scores[2] == 0
    assert outcome(scores, tokens=[5, 5, 5]).ranked == [0, 1, 2]
    assert outcome(scores, tokens=[150, 100, 40]).within[0] == {0, 2}
    fused = fuse(scores, scores[::-1])
    assert fused[0] == fused[2] == pytest.approx(1 / 61 + 1 / 63)


def test_the_command_measures_the_servers_own_recall(file, tmp_path, server_environment):
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--file", str(file), "--json", str(tmp_path / "figures.json")],
        cwd=PROJECT_DIR,
        env=os.environ | server_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(NAMES) < set(figures)
    assert figures["questions"] == 3
    assert figures["mrr"] == 1
    assert figures["r@5"] == figures["r@10"] == figures["r@200tokens"] == 100
    assert {name: part["questions"] for name, part in figures["per_category"].items()} == {"1": 1, "4": 2}
    assert set(figures["baselines"]) == {"bm25", "vectors", "rrf"}
    assert all(set(NAMES) == set(row) for row in figures["baselines"].values())
    assert "this server, 3 questions" in result.stdout


def test_the_command_measures_how_long_recall_takes_as_memory_grows(tmp_path, server_environment):
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--scale", "--rows", "1000", "--json", str(tmp_path / "figures.json")],
        cwd=PROJECT_DIR,
        env=os.environ | server_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    [stage] = figures["stages"]
    assert 1000 <= stage["vectors"] < 1500
    assert stage["stored_per_s"] > 0
    assert set(stage["recall_ms"]) == {"200"}
    assert 0 < figures["embedding_ms"]["p50"] < stage["recall_ms"]["200"]["p95"]
    assert "owner of 200" in result.stdout


def test_the_command_lets_a_storm_loose(tmp_path, server_environment):
    result = tmp_path / "storm.json"
    options = ["--storm", "--operations", "200", "--seed", "5", "--json", str(result)]
    command = [sys.executable, "-m", "benchmarks.memory", *options]
    done = subprocess.run(command, cwd=PROJECT_DIR, env=os.environ | server_environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seed 5\n")
    figures = json.loads(result.read_text())
    assert (figures["foreign"], figures["after_forgetting"], figures["lost"], figures["doubled"]) == (0, 0, 0, 0)
    assert figures["operations"] >= 200
