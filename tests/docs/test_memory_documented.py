"""docs/memory.md shows the weights that are at work."""

from memory.weights import FEATURES
from tests.live_server import PROJECT_DIR


def test_every_feature_is_explained_with_its_weight():
    page = (PROJECT_DIR / "docs" / "memory.md").read_text()
    rows = [line for line in page.splitlines() if line.endswith((".", ". |")) and line.count(" | ") == 3]
    assert rows == [f"| {each.name.replace('_', ' ')} | {each.weight:g} | {each.range} | {each.because} |" for each in FEATURES]
