"""Vectors too long for an index row: recall by sketches finds what exact comparison finds."""

from datetime import UTC, datetime

import numpy as np
import pytest
from django.db import DatabaseError, connection, transaction

from memory.embedders.client import EmbeddingModel
from memory.features import features_of
from memory.isolation import act_for, stop_acting
from memory.models import EmbeddingSpace, MemoryOwner, Origin, Sentence, Speaker, WideSentence
from memory.question import Voices, read_question
from memory.ranking import rank
from memory.storing import NewPassage, halfvec, store_alone
from tests.factories import forget_vectors, unique

pytestmark = pytest.mark.django_db

PASSAGES, QUERIES, CLUSTERS, TOP = 1500, 8, 30, 10
TODAY = datetime(2026, 5, 1, tzinfo=UTC)
MATCH = "SELECT text, similarity FROM match_memory(%s::halfvec, match_count => %s, owner => %s)"


def vectors(dimensions):
    """Unit vectors around a few centres, all on one side of the space, as those of embedding models are; and queries like them."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(CLUSTERS, dimensions)) + random.normal(size=dimensions)
    found = centres[random.integers(CLUSTERS, size=PASSAGES + QUERIES)] + random.normal(size=(PASSAGES + QUERIES, dimensions)) * 0.8
    return np.split(found / np.linalg.norm(found, axis=1, keepdims=True), [PASSAGES])


def keep(vectors):
    """Store a passage for each vector, as a collection's; return its owner."""
    forget_vectors()
    owner = MemoryOwner.objects.create(kind="shared", collection=unique("library"))
    passages = [
        NewPassage(
            owner_id=owner.pk,
            origin=Origin.ADDED,
            speaker=Speaker.NOTE,
            said_at=TODAY,
            text=f"Passage {number}.",
            features=features_of(f"Passage {number}.", said_on=TODAY.date()),
            vectors=(tuple(vector),),
        )
        for number, vector in enumerate(vectors.tolist())
    ]
    assert all(store_alone(passages, model=EmbeddingModel("", "", "some-model", vectors.shape[1])))
    return owner


def closest(vectors, query):
    cosines = vectors @ query
    return {f"Passage {number}.": cosines[number] for number in np.argsort(-cosines)[:TOP]}


def ranked(owner, query, *, most):
    asked = read_question("What was it?", voices=Voices(), today=TODAY.date())
    space = EmbeddingSpace.objects.get()
    return rank(asked, embedding=query.tolist(), space_id=space.pk, owner_id=owner.pk, session=None, most=most)


def recalled(owner, query):
    """The closest by the feature `meaning` among what recall ranks first."""
    found = sorted(ranked(owner, query, most=60), key=lambda each: -each.features["meaning"])
    return {each.text: each.features["meaning"] for each in found[:TOP]}


def matched(owner, query):
    with connection.cursor() as cursor:
        cursor.execute(MATCH, [halfvec(query.tolist()), TOP, owner.pk])
        return dict(cursor.fetchall())


@pytest.mark.parametrize(("dimensions", "found_by"), [(1536, recalled), (1536, matched), (3072, matched), (4000, recalled)])
def test_the_closest_by_sketches_and_rescoring_are_the_closest(dimensions, found_by):
    stored, queries = vectors(dimensions)
    owner = keep(stored)
    act_for([owner.pk])
    assert (WideSentence.objects.count(), Sentence.objects.count()) == (PASSAGES, 0)
    right = 0
    for query in queries:
        wanted, found = closest(stored, query), found_by(owner, query)
        both = wanted.keys() & found.keys()
        right += len(both)
        assert [found[text] for text in both] == pytest.approx([wanted[text] for text in both], abs=0.002)
    assert right / (TOP * QUERIES) >= 0.95


def test_what_is_far_is_estimated_well_enough():
    stored, queries = vectors(1536)
    owner = keep(stored)
    act_for([owner.pk])
    cosines = stored @ queries[0]
    errors = [abs(each.features["meaning"] - cosines[int(each.text[8:-1])]) for each in ranked(owner, queries[0], most=PASSAGES)]
    assert len(errors) == PASSAGES
    assert max(errors) < 0.15
    assert sum(errors) / PASSAGES < 0.05


def test_match_memory_sees_whom_it_may_and_says_what_does_not_fit():
    stored, queries = vectors(1536)
    owner = keep(stored[:50])
    query = halfvec(queries[0].tolist())

    def found(statement="SELECT text FROM match_memory(%s::halfvec, match_count => 99)", query=query):
        with connection.cursor() as cursor:
            cursor.execute(statement, [query])
            return len(cursor.fetchall())

    act_for([owner.pk])
    assert found() == 50
    assert found("SELECT text FROM match_memory(%s::halfvec)") == 5
    act_for([owner.pk + 1])
    assert found() == len(matched(owner, queries[0])) == 0
    stop_acting()
    assert found() == 50  # a superuser, whom no policy holds
    with pytest.raises(DatabaseError, match="1536"), transaction.atomic():
        found(query="[1,2]")
