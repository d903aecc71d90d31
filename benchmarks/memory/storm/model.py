"""What ought to be remembered: a model of memory that a reader can check at a glance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID


class Broken(AssertionError):
    """A promise is broken: a memory is a stranger's, is back, is lost, or is there twice."""


@dataclass(slots=True)
class Mind:
    """What one agent knows of one person. Texts are never the same twice, in all the storm.

    Attributes:
        waiting: what was said and may or may not be a memory yet, by turn.
        live: what must be recalled.
        history: what was corrected or contradicted; it may be shown, and must not be recalled.
        gone: what was forgotten or erased; no row of it may be left.
        home: where they live, as they told last; both the sentence and the fact that was read from it.
        told: homes that are told of in turns that wait.
    """

    agent: str
    user: str
    waiting: dict[UUID, tuple[str, ...]] = field(default_factory=dict)
    live: dict[str, None] = field(default_factory=dict)
    history: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    home: str = ""
    told: list[str] = field(default_factory=list)

    def remembered(self) -> None:
        """What waited is remembered now; of the homes, the one that was told of last holds."""
        for texts in self.waiting.values():
            self.live |= dict.fromkeys(texts)
        self.waiting.clear()
        for home in self.told:
            if self.home:
                del self.live[self.home]
                self.history.add(self.home)
            self.home = home
        self.told.clear()

    def corrected(self, old: str, new: str) -> None:
        del self.live[old]
        self.history.add(old)
        self.live[new] = None

    def forgotten(self, text: str) -> None:
        del self.live[text]
        self.gone.add(text)

    def emptied(self) -> None:
        """All of it is forgotten, what waits included."""
        self.gone.update(self.live, self.history, *self.waiting.values())
        self.live.clear()
        self.history.clear()
        self.waiting.clear()
        self.told.clear()
        self.home = ""

    def correctable(self) -> list[str]:
        return [text for text in self.live if text != self.home]

    def check_recalled(self, recalled: list[str], *, asked: str) -> None:
        """Prove that what was recalled for the text `asked` is theirs, still holds, is there once, and is what was asked for.

        Raises:
            Broken: it is not.
        """
        waiting = {text for texts in self.waiting.values() for text in texts}
        for text, times in Counter(recalled).items():
            if times > 1:
                raise Broken(f"doubled: {text!r} was recalled {times} times for {self.user} of {self.agent}")
            if text in self.gone:
                raise Broken(f"back: {text!r} was forgotten, and recalled for {self.user} of {self.agent}")
            if text in self.history:
                raise Broken(f"outdated: {text!r} holds no more, and was recalled for {self.user} of {self.agent}")
            if text not in self.live and text not in waiting:
                raise Broken(f"foreign: {text!r} was recalled for {self.user} of {self.agent}")
        # A newer home that waits may have taken the place of the one that is known.
        if asked in self.live and asked not in recalled and not (asked == self.home and self.told):
            raise Broken(f"lost: {asked!r} was not recalled for {self.user} of {self.agent}; they have {len(self.live)}")

    def check_stored(self, rows: list[tuple[str, str, bool]]) -> None:
        """Prove that the passages (text, origin, whether it holds) are those that ought to be there, once each.

        Raises:
            Broken: they are not.
        """
        facts = [row for row in rows if row[1] == "fact"]
        said = [row for row in rows if row[1] != "fact"]
        doubled = [text for kind in (facts, said) for text, times in Counter(text for text, *_ in kind).items() if times > 1]
        held, ended = ({text for text, _, holds in rows if holds is wanted} for wanted in (True, False))
        if doubled or held != set(self.live) or not ended <= self.history:
            raise Broken(
                f"{self.user} of {self.agent}: doubled {doubled}, lost {set(self.live) - held}, "
                f"not theirs or back {held - set(self.live)}, and in history {ended - self.history}"
            )
