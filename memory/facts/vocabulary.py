"""The words and phrases of which the patterns of facts are made, as regular expressions.

Where case does not matter they are to be used within `(?i:…)`; names and places must be capitalised.
"""

from __future__ import annotations

from typing import Final


def _any(phrases: str) -> str:
    """Return a pattern for any of the words in `phrases`; an underscore stands for a blank or a hyphen."""
    return "(?:" + "|".join(phrase.replace("_", "[ -]") for phrase in phrases.split()) + ")"


I_AM: Final = r"I(?:'m| am)(?: now| currently| still)?"
ANY_MORE: Final = r"(?:,? (?:any ?more|any longer|these days|now))?"
MORE: Final = r"(?:[,;]? (?:and|but|because|since|so|with|where|which|for|,)\b.*|,.*)?"
"""What may follow a statement without changing it."""

_NO_NAMES: Final = _any(
    """Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August September October
    November December I OK Okay Not No Just Very So The Sir Back Tomorrow Today God Christmas Easter Batman Nobody Anonymous Null None
    Test"""
)
# Capitalised words that say what somebody is, and not who: "Hi, I'm German".
_NO_WHO: Final = _any(
    """American British English Irish Scottish Welsh French German Italian Spanish Portuguese Dutch Belgian Swiss Austrian Polish Czech
    Slovak Hungarian Romanian Bulgarian Greek Turkish Russian Ukrainian Swedish Norwegian Danish Finnish European Asian African Indian
    Chinese Japanese Korean Vietnamese Thai Indonesian Filipino Pakistani Iranian Iraqi Syrian Lebanese Israeli Jewish Muslim Christian
    Catholic Protestant Buddhist Hindu Egyptian Moroccan Nigerian Kenyan Mexican Brazilian Argentinian Chilean Colombian Canadian
    Australian Latino Latina Hispanic Arab Arabic Republican Democrat Your Interested Looking Sorry Happy Sad Tired Vegan"""
)
# People move to new systems, teams and plans as well as to new towns.
_NO_PLACES: Final = _any(
    """Linux Ubuntu Debian Windows Mac Apple Android Chrome Firefox Python Java JavaScript TypeScript Rust Go Ruby Swift Kotlin React Vue
    Angular Django Rails Postgres PostgreSQL Oracle Azure Google Amazon Microsoft Slack Teams Zoom Gmail Outlook Notion Docker Kubernetes
    Git GitHub GitLab Jira Excel Sales Marketing Engineering Finance Legal Support Product Design Premium Pro Plus Basic Enterprise
    Business Plan Agile Scrum Chapter Section Level Step Version Room Table Seat Line Page English German French Spanish Peace Fear Hell
    Cloud"""
)
CAPITALISED: Final = r"[A-Z][\w'-]*"
NO_NAME: Final = rf"(?!{_NO_NAMES}\b)"
NO_WHO: Final = rf"(?!{_NO_WHO}\b)"
_BETWEEN_NAMES: Final = _any("van von de der den da di la le bin al")
NAME: Final = rf"{NO_NAME}[A-Z][a-zÀ-ž'-]*[a-zÀ-ž](?: (?:{_BETWEEN_NAMES} )*[A-Z][\w'.-]*){{0,3}}"
_BETWEEN_PLACES: Final = _any("am an_der upon of the de la le on in")
# Neither camelCase nor an abbreviation: those are products.
PLACE: Final = (
    rf"(?!(?:the )?{_NO_PLACES}\b|\w*[a-z][A-Z]|[A-Z]{{4}})(?:the )?{CAPITALISED}(?:,? (?:{_BETWEEN_PLACES} )*{CAPITALISED}){{0,4}}"
)
COMPANY: Final = rf"{NO_NAME}(?:the )?{CAPITALISED}(?: (?:(?:of|and|&|the) )?{CAPITALISED}){{0,4}}"

_MONTH: Final = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)"
)
_SINCE: Final = _any(
    """now since for with near at_the_moment these_days currently right_now and because again last this two three a_few a_year a_month
    a_week"""
)
AFTER_PLACE: Final = rf"(?:(?:,| -)? (?:(?:{_SINCE}|in (?:\d{{4}}|{_MONTH})|\d+)\b.*)|,.*)?"
_NTH: Final = r"\d{1,2}(?:st|nd|rd|th)?"
DATE: Final = (
    rf"(?i:(?:the )?{_NTH}(?: of)? {_MONTH}\.?(?:,? \d{{4}})?|{_MONTH}\.? (?:the )?{_NTH}(?:,? \d{{4}})?|"
    r"\d{1,4}[./-]\d{1,2}(?:[./-]\d{1,4})?)"
)
_JOBS: Final = _any(
    """accountant actor actress actuary analyst archaeologist architect artist astronomer attorney author baker banker barber barista
    bartender biologist bookkeeper builder butcher carpenter cashier chef chemist cleaner coach composer consultant cook counsellor
    counselor dancer dentist designer developer director doctor driver economist editor electrician engineer farmer firefighter fisherman
    florist freelancer gardener geologist hairdresser historian illustrator interpreter janitor journalist judge lawyer lecturer librarian
    machinist manager mathematician mechanic midwife miner musician nanny notary novelist nurse nutritionist optician painter paramedic
    pharmacist photographer physician physicist physiotherapist pilot plumber poet policeman police_officer politician postman priest
    producer professor programmer psychiatrist psychologist receptionist recruiter researcher sailor salesman saleswoman scientist sculptor
    secretary security_guard singer social_worker soldier statistician student surgeon surveyor tailor teacher technician therapist
    translator tutor vet veterinarian waiter waitress welder writer zoologist"""
)
JOB: Final = rf"(?:[a-z-]+ ){{0,3}}?{_JOBS}"
ONE_RELATIVE: Final = _any("wife husband spouse partner girlfriend boyfriend fiancé fiancée fiance fiancee mother mum mom father dad boss")
"""Of whom people have one."""
RELATIVE: Final = _any(
    """son daughter child kid baby brother sister grandson granddaughter nephew niece cousin uncle aunt grandmother grandfather"""
)
WHICH_RELATIVE: Final = r"(?:(?:older|younger|eldest|youngest|little|big|new|twin) )?"
PET: Final = _any(
    "dog puppy cat kitten parrot budgie rabbit hamster guinea_pig horse pony goldfish tortoise turtle snake bird ferret rat chicken"
)
_NO_FOOD: Final = _any(
    "it that this them much anything everything well enough out at in here there breakfast lunch dinner now yet today to for because when"
)
FOOD: Final = rf"(?!{_NO_FOOD}\b)[a-z][a-z' -]{{1,40}}?"
# What a pronoun or "the" begins means something of the conversation, and says nothing alone; nor does what a pronoun stands in.
_NO_THING: Final = _any(
    """you your yours me my our us how what when where why who which to_be to_know to_see to_ask to_get to_have the both all any anything
    everything nothing something none either neither being doing having getting because since so a an not here there also too"""
)
_ELSEWHERE: Final = _any("it its it's he him his she her hers they them their this that these those one you your")
THING: Final = rf"(?!to$|to[,.]|{_NO_THING}\b(?! [A-Z]))(?!(?:[^,;]*\W)?{_ELSEWHERE}\b)[A-Za-z][\w' -]{{1,60}}?"
AFTER_THING: Final = r"(?:,.*|[,;]? (?:and (?:I|my|it|we)|but|because|since|so|especially|as long as|even|- )\b.*)?"
DEGREE: Final = r"(?: (?:a lot|very much|so much|too|most|best|the most|the best|a bit|as well|in general|more than anything))?"
SO: Final = r"(?:(?:really|absolutely|still|also|just|do|always|generally|usually|actually|truly|quite|particularly|especially) )*"
_NO_CHOICE: Final = r"(?!(?:it|that|this|them|these|those|the (?:first|second|third|other|latter|former)|not to|one|your)\b)"
CHOICE: Final = rf"{_NO_CHOICE}[A-Za-z].{{1,80}}?"
_PROPER: Final = r"(?!I\b)[A-Z0-9][\w.'-]*"
VALUE: Final = rf"(?:[\w.+-]+@[\w.-]+|{_PROPER}(?: {_PROPER}){{0,3}})"
"""What a correction puts right: names and numbers alone."""
