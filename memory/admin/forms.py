"""The small forms of the pages about memories."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold import widgets

from memory.curating import MAX_CHARS
from memory.models import MemoryOwner, OwnerKind

MAX_TEXT_CHARS: Final = 200_000
"""How long a text may be that is added to what is known for everybody: a small book's chapter."""
_NAME: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"


class _Textarea(widgets.UnfoldAdminTextareaWidget):
    # Django's template, unlike unfold's, keeps a text's first line when that is empty.
    template_name = "django/forms/widgets/textarea.html"


class MemoryForm(forms.Form):
    """One memory, to be added or to take another's place."""

    text = forms.CharField(
        label="What is to be remembered",
        max_length=MAX_CHARS,
        widget=_Textarea({"rows": 4}),
        help_text="One thing in a sentence or two, as you would tell a colleague: “Maria lives in Lisbon.”",
    )


class TextForm(forms.Form):
    """A text of any length for shared knowledge."""

    text = forms.CharField(
        label="Text",
        max_length=MAX_TEXT_CHARS,
        widget=_Textarea({"rows": 12}),
        help_text="A sentence, or a long text that you paste: it is split into passages that are found one by one.",
    )


class CollectionForm(forms.Form):
    """The name of a new collection."""

    name = forms.RegexField(
        _NAME,
        label="Name",
        max_length=63,
        widget=widgets.UnfoldAdminTextInputWidget({"autocomplete": "off", "spellcheck": "false"}),
        help_text="Small letters, digits and hyphens, such as opening-hours. Agents use the collection by this name, so it never changes.",
        error_messages={"invalid": "Use small letters, digits and single hyphens, such as opening-hours."},
    )

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if MemoryOwner.objects.filter(kind=OwnerKind.SHARED, collection=name).exists():
            raise ValidationError("There is a collection of this name. Open that one, or choose another name.")
        return name


class ConfirmForm(forms.Form):
    """Type a name, so that nobody erases by a slip of the hand."""

    typed = forms.CharField(
        label="Type the name to confirm",
        widget=widgets.UnfoldAdminTextInputWidget({"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, expected: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected
        self.fields["typed"].label = f"To confirm, type {expected}"

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"]
        if typed != self.expected:
            raise ValidationError(f"This is not {self.expected}. Nothing was erased.")
        return typed
