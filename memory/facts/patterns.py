"""The rules by which statements are read: each a pattern for a whole clause, and the attribute that it tells of.

Patterns distinguish case where names are meant, so their other words stand in `(?i:…)`. The group `value` is what is told; further
groups fill the attribute's braces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from memory.facts.vocabulary import (
    AFTER_PLACE,
    AFTER_THING,
    ANY_MORE,
    CHOICE,
    COMPANY,
    DATE,
    DEGREE,
    FOOD,
    I_AM,
    JOB,
    MORE,
    NAME,
    NO_WHO,
    ONE_RELATIVE,
    PET,
    PLACE,
    RELATIVE,
    SO,
    THING,
    VALUE,
    WHICH_RELATIVE,
)

CORRECTION: Final = "correction"
"""Of something that was told before, and that alone says what it is about: "No, Hamburg, not Berlin"."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, and what a clause that it matches tells of.

    Attributes:
        ends: the clause only ends what was told before.
        denies: it tells that something is not so.
        after_greeting: it is read so only after "Hi" or "Hello".
    """

    attribute: str
    pattern: re.Pattern[str]
    ends: bool = False
    denies: bool = False
    after_greeting: bool = False


def _rule(attribute: str, pattern: str, *, ends: bool = False, denies: bool = False, after_greeting: bool = False) -> Rule:
    return Rule(attribute, re.compile(pattern), ends, denies, after_greeting)


_WHO: Final = (
    _rule("name", rf"(?i:my (?:full |first |real |actual )?name(?:'s| is)(?: now| actually)?) (?P<value>{NAME}){MORE}"),
    _rule("name", rf"(?i:I(?:'m| am) (?:called|named)) (?P<value>{NAME}){MORE}"),
    _rule("name", rf"(?i:I(?:'m| am)) {NO_WHO}(?P<value>{NAME})(?: from .*|{MORE})", after_greeting=True),
    _rule("called", rf"(?i:(?:please |just |you (?:can|may) (?:just )?)*call me) (?P<value>{NAME})(?: from now on|,? please)?"),
    _rule("called", rf"(?i:(?:everyone|everybody|people|(?:my |most )?friends|most people) calls? me|I go by) (?P<value>{NAME})"),
    _rule("called", rf"(?i:(?:please )?(?:don't|do not|stop|never) call(?:ing)? me) (?P<value>{NAME}){ANY_MORE}", ends=True),
    _rule(
        "age",
        rf"(?i:{I_AM}|I(?: have|'ve)?(?: just| recently)? turned|my age is) (?P<value>[1-9]\d|10\d|[5-9])(?: years old| today| now)?{MORE}",
    ),
    _rule("birthday", rf"(?i:my (?:birthday|date of birth|birth date)(?:'s| is)(?: on)?|I was born on) (?P<value>{DATE}){MORE}"),
    _rule("e-mail", r"(?i:my (?:new |work |private |personal )?e-?mail(?: address)? is(?: now)?) (?P<value>\S+@[\w-]+(?:\.[\w-]+)+)"),
    _rule(
        "phone",
        r"(?i:my (?:new |work |private |personal )?(?:(?:tele|mobile |cell ?)?phone|mobile|cell)?(?: ?number)? is(?: now)?) "
        r"(?P<value>\+?[\d(][\d ()/.-]{5,20}\d)",
    ),
    _rule("mother tongue", r"(?i:my (?:native language|mother tongue|first language) is) (?P<value>[A-Z][a-z]+)"),
    _rule(
        "speaks:{value}",
        r"(?i:I speak(?: fluent| some| a little)?) (?P<value>[A-Z][a-z]+(?:(?:,| and|, and) [A-Z][a-z]+)*)(?: fluently| too)?",
    ),
)
_WHERE: Final = (
    _rule("home", rf"(?i:(?:I|we) (?:(?:now|currently|still) )*live) in (?P<value>{PLACE}){AFTER_PLACE}"),
    _rule("home", rf"(?i:(?:{I_AM}|we're|we are) (?:living|based)) in (?P<value>{PLACE}){AFTER_PLACE}"),
    _rule(
        "home",
        rf"(?i:(?:I|we)(?:'ve| have)?(?: just| recently| now)* (?:moved|relocated)(?: back)?) to (?P<value>{PLACE}){AFTER_PLACE}",
    ),
    _rule("home", rf"(?i:my home(?: ?town)? is(?: now)?(?: in)?) (?P<value>{PLACE}){AFTER_PLACE}"),
    _rule("home", rf"(?i:(?:I|we) (?:no longer|don't|do not) live) in (?P<value>{PLACE}){ANY_MORE}", ends=True),
    _rule("home", rf"(?i:(?:I|we) used to live) in (?P<value>{PLACE})(?: .*)?", ends=True),
    _rule(
        "home", rf"(?i:(?:I|we)(?:'ve| have)?(?: just| recently)? moved (?:away from|out of)) (?P<value>{PLACE}){AFTER_PLACE}", ends=True
    ),
    _rule(
        "origin",
        rf"(?i:I(?:'m| am)(?: originally)? from|I (?:originally )?come from|I was born in|I grew up in) (?P<value>{PLACE}){AFTER_PLACE}",
    ),
)
_WORK: Final = (
    _rule("job", rf"(?i:I (?:now |currently )?work|{I_AM} working) as an? (?P<value>[a-z][a-z -]{{2,50}}?)(?: (?:at|for|in) .*|{MORE})"),
    _rule("job", rf"(?i:{I_AM}) an? (?P<value>{JOB})(?: (?:at|for|in|from|by) .*|{MORE})"),
    _rule("job", rf"(?i:my (?:job|profession|occupation) is(?: now)?)(?: an?)? (?P<value>{JOB}){MORE}"),
    _rule("job", rf"(?i:{I_AM}(?: just)?) (?P<value>retired|unemployed|self-employed)(?: since .*|{MORE})"),
    _rule("job", r"(?i:I(?:'ve| have)?(?: just| recently)?) (?P<value>retired)(?: last .*| this .*| in \d{4})?"),
    _rule("job", rf"(?i:I(?:'m| am) no longer an?|I(?:'m| am) not an?) (?P<value>{JOB}){ANY_MORE}", ends=True),
    _rule(
        "employer",
        rf"(?i:I (?:now |currently |still )*work|{I_AM} (?:working|employed)|I(?: just| recently)? started working) (?:at|for) "
        rf"(?P<value>{COMPANY}|an? [a-z-]+(?: [a-z-]+){{0,2}}?)(?: as an? .*| in .*|{MORE})",
    ),
    _rule("employer", rf"(?i:my (?:new )?employer is(?: now)?) (?P<value>{COMPANY}){MORE}"),
    _rule(
        "employer", rf"(?i:I (?:no longer|don't|do not) work) (?:at|for) (?P<value>(?:the |an? )?[\w&' -]{{2,50}}?){ANY_MORE}", ends=True
    ),
    _rule("employer", rf"(?i:I (?:quit|left) my job) at (?P<value>{COMPANY})(?: .*)?", ends=True),
)
_FAMILY: Final = (
    _rule(
        "family:{relation}",
        rf"(?i:my (?:new |late )?(?P<relation>{ONE_RELATIVE}))(?:'s name is| is called| is named| is) (?P<value>{NAME}){MORE}",
    ),
    _rule("family:{relation}", rf"(?i:my (?P<relation>{ONE_RELATIVE})),? (?P<value>{NAME}),? [a-z].*"),
    _rule(
        "family:{relation}:{value}",
        rf"(?i:my {WHICH_RELATIVE}(?P<relation>{RELATIVE}))(?:'s name is| is called| is named) (?P<value>{NAME}){MORE}",
    ),
    _rule("family:{relation}:{value}", rf"(?i:my {WHICH_RELATIVE}(?P<relation>{RELATIVE})),? (?P<value>{NAME}),? [a-z].*"),
    _rule(
        "family:{relation}:{value}", rf"(?i:I have an? {WHICH_RELATIVE}(?P<relation>{RELATIVE}),? (?:named|called)) (?P<value>{NAME}){MORE}"
    ),
    _rule(
        "children",
        r"(?i:(?:I|we) have (?P<value>(?:an?|one|two|three|four|five|six|no|\d) (?:kids?|child(?:ren)?|sons?|daughters?)))",
    ),
    _rule("relationship", rf"(?i:{I_AM} (?P<value>married|engaged|divorced|widowed))(?: to {NAME})?"),
    _rule("pet:{value}", rf"(?i:my {PET})(?:'s name is| is called| is named) (?P<value>{NAME}){MORE}"),
    _rule("pet:{value}", rf"(?i:my {PET}),? (?P<value>{NAME}),? [a-z].*"),
    _rule(
        "pet:{value}",
        rf"(?i:(?:I|we)(?:'ve| have)?(?: just| recently)?(?: got| adopted)? an? {PET},? (?:named|called)) (?P<value>{NAME}){MORE}",
    ),
    _rule("pet:{value}", rf"(?i:(?:I|we) (?:have|own) (?:an?|one|two|three|four|five) (?P<value>{PET}))s?"),
)
_BODY: Final = (
    _rule("allergy:{value}", rf"(?i:{I_AM}(?: very| severely| highly| also| badly)? allergic to) (?P<value>{FOOD}){MORE}"),
    _rule("allergy:{value}", r"(?i:I have an?(?: severe| bad| mild)?) (?P<value>[a-z]{3,20}(?: [a-z]{3,20})?) allergy"),
    _rule("allergy:{value}", rf"(?i:{I_AM}) (?P<value>lactose|gluten)[ -](?i:intolerant){MORE}"),
    _rule("allergy:{value}", rf"(?i:I(?:'m| am) (?:no longer|not) allergic to) (?P<value>{FOOD}){ANY_MORE}", ends=True),
    _rule("diet", rf"(?i:{I_AM}(?: an?)?(?: strict)? (?P<value>vegan|vegetarian|pescatarian)){MORE}"),
    _rule("diet", rf"(?i:I(?:'m| am) (?:no longer|not)(?: an?)? (?P<value>vegan|vegetarian|pescatarian)){ANY_MORE}", ends=True),
    _rule("health:{value}", rf"(?i:{I_AM}(?: an?)? (?P<value>diabetic|coeliac|celiac|colou?r ?blind|deaf|blind|pregnant)){MORE}"),
    _rule(
        "diet:{value}",
        rf"(?i:I (?:don't|do not|can't|cannot|never) (?:eat|drink)) (?P<value>{FOOD})(?: any ?more| at all)?{MORE}",
        denies=True,
    ),
)
_TASTE: Final = (
    _rule(
        "favourite:{what}",
        r"(?i:my (?:new |all-time )?favou?rite) (?P<what>(?!one|thing|part)[a-z][a-z ]{1,40}?) (?:is|are)(?: now| still)? "
        rf"(?P<value>(?!not\b|that\b|this\b|it\b|when\b)\w.{{0,60}}?){MORE}",
    ),
    _rule("opinion:{value}", rf"(?i:I {SO}(?:like|love|enjoy|adore)) (?P<value>{THING}){DEGREE}{AFTER_THING}"),
    _rule(
        "opinion:{value}",
        rf"(?i:I {SO}(?:hate|dislike|detest|can't stand|cannot stand)) (?P<value>{THING}){DEGREE}{AFTER_THING}",
        denies=True,
    ),
    _rule(
        "opinion:{value}",
        rf"(?i:I (?:really )?(?:don't|do not)(?: really)? (?:like|enjoy|love)) (?P<value>{THING})(?: at all| much)?{ANY_MORE}{AFTER_THING}",
        denies=True,
    ),
    _rule("opinion:{value}", rf"(?i:I no longer (?:like|love|enjoy|hate|dislike)) (?P<value>{THING}){AFTER_THING}", ends=True),
    _rule("preference", rf"(?i:I {SO}prefer) (?P<value>{CHOICE})"),
    _rule("preference", r"(?i:from now on,? (?:please )?|please )(?P<value>(?i:always|never) [a-z].{3,100})"),
)
_CORRECTIONS: Final = (
    _rule(CORRECTION, rf"(?i:it's |it is |that's |make that )?(?P<value>{VALUE}), not (?P<wrong>{VALUE})"),
    _rule(CORRECTION, rf"(?i:(?:it's |it is |that's )?not) (?P<wrong>{VALUE}),? but (?P<value>{VALUE})"),
)
RULES: Final = _WHO + _WHERE + _WORK + _FAMILY + _BODY + _TASTE + _CORRECTIONS
