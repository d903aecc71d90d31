"""What tells two questions apart whose vectors are nearly the same, and what does not."""

import pytest

from agents.chat.contrasts import contrast


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("Where is order 12?", "Where is order 13?", "numbers"),
        ("Where is order A-12?", "Where is order B-12?", "numbers"),
        ("Where is my order?", "Where is my order 12?", "numbers"),
        ("From 3 to 5?", "From 5 to 3?", "numbers"),
        ("Is it one month or two months?", "Is it two months or one month?", "numbers"),
        ("Is ana@example.com right?", "Is bob@example.com right?", "numbers"),
        ("Does it cost $?", "Does it cost €?", "numbers"),
        ("٣ كتب", "٤ كتب", "numbers"),
        ("Can I return shoes?", "Can't I return shoes?", "negations"),
        ("Can I return shoes?", "Can\u2019t I return shoes?", "negations"),
        ("Can I return shoes?", "Can I not return shoes?", "negations"),
        ("Do you ship there?", "Do you never ship there?", "negations"),
        ("Habt ihr Brot?", "Habt ihr kein Brot?", "negations"),
        ("C'est possible ?", "Ce n'est pas possible ?", "negations"),
        ("How do I enable alerts?", "How do I disable alerts?", "opposites"),
        ("How do I subscribe?", "How do I unsubscribe?", "opposites"),
        ("Is this mushroom edible?", "Is this mushroom inedible?", "opposites"),
        ("Is Paris nice?", "Is London nice?", "names"),
        ("Paris: what is on?", "London: what is on?", "names"),
        ("Call Ada. Berta waits.", "Call Ada. Carla waits.", "names"),
        ("Does the iPhone work?", "Does the phone work?", "names"),
        ("How do I learn C++?", "How do I learn C#?", "numbers"),
        ("Does it cost 5 ₹?", "Does it cost 5 ¥?", "numbers"),
        ("How do I convert dollars to euros?", "How do I convert euros to dollars?", "order"),
        ("Can I move from Basic to Pro?", "How can I move from Pro to Basic?", "order"),
        ("Is tea better than coffee?", "Is coffee better than tea?", "order"),
        ("Does the dog bite the man?", "Does the man bite the dog?", "order"),
    ],
)
def test_what_differs_is_told_apart_both_ways(one, other, found):
    assert contrast(one, other) == found
    assert contrast(other, one) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "How can I reset my password?"),
        ("How do I reset my password?", "how to reset password"),
        ("What are your opening hours?", "When are you open?"),
        ("Where is order 12?", "where's order #12"),
        ("Is Paris nice?", "how nice is paris"),
        ("I can't log in", "Why can't I log in?"),
        ("Do you ship to Norway?", "Can you deliver to Norway?"),
        ("Can I switch from Basic to Pro?", "How can I switch from Basic to Pro?"),
        ("My password: how do I reset it?", "How do I reset my password?"),
        ("Wie setze ich mein Passwort zurück?", "Kann ich mein Passwort zurücksetzen?"),
        ("", ""),
        ("¿?", "!"),
    ],
)
def test_other_words_for_the_same_are_let_pass(one, other):
    assert contrast(one, other) == contrast(other, one) == ""
