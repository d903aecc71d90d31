"""The one table of weights: what counts for a recalled passage, how much, and the sentence that explains it to an editor.

A passage's score is the sum of weight x feature. The weights were learnt from conversations between people by listwise logistic
regression and rounded to whole numbers, which costs nothing measurable. Nothing is normalised within a result, so that a score means
the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Feature:
    """One reason to recall a passage.

    Attributes:
        name: its column in the recall statement (`memory/ranking.py`).
        weight: what one unit of it adds to the score.
        range: the values it takes.
        because: the reason in words.
    """

    name: str
    weight: float
    range: str
    because: str


FEATURES: Final = (
    Feature("words", 2.0, "0 to 1", "It contains the question's words; rare words count more."),
    Feature("meaning", 4.0, "cosine", "One of its sentences is close in meaning to the question."),
    Feature("nearby_words", 2.0, "BM25 / 10, 0 to about 2.5", "It or the two passages before and after it contain the question's words."),
    Feature("whole_passage", 3.0, "cosine", "It is close in meaning as a whole: the mean of its sentences, long ones counting more."),
    Feature("answers_question", 2.0, "0 to 2", "The passage before asked something like this question, so this one answers it."),
    Feature("session_meaning", 6.0, "cosine", "The same session spoke of the subject: the closest of all its sentences."),
    Feature("date", 5.0, "0 to 1.3", "The question names a date; it was said then, or speaks of then."),
    Feature("speaker", 1.0, "0 or 1", "It was said by the one who is asked about."),
    Feature("answer_form", 3.0, "0, 0.4 or 1", "It holds the form asked for: a time for when, a number for how many, a name, a reason."),
    Feature("asks", -2.0, "0 to 1", "It is a question itself: the share of its words that are questions. Those seldom hold answers."),
    Feature("opens", 1.0, "0 or 1", "It opens a session: it brings a subject of its own, and nothing before it lends it weight."),
    Feature("recent", 0.5, "0 to 1, halved every 30 days", "It was said lately: among equals the newest counts."),
)

WEIGHTS: Final = {feature.name: feature.weight for feature in FEATURES}
