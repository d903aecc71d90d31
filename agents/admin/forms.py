"""The forms of an agent's pages: its settings, its draft, and the draft's fallback models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from django import forms
from django.core.exceptions import ValidationError
from unfold import widgets

from agents.models import OUT_OF_BOUNDS, SLUG_PATTERN, Agent, AgentVersion, Provider, validate_slug
from agents.versions.content import MAX_FALLBACKS
from agents.versions.publishing import default_provider
from observability.api import count_tokens

if TYPE_CHECKING:
    AgentModelForm = forms.ModelForm[Agent]
    VersionModelForm = forms.ModelForm[AgentVersion]
else:
    AgentModelForm = VersionModelForm = forms.ModelForm

NO_PROMPT: Final = "Write at least one sentence: an agent without instructions does not know who it is."
DEFAULT_PROVIDER: Final = "default"

GROUPS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("Personality", "Who the agent is and how it speaks.", ("system_prompt", "greeting")),
    ("Model", "Which model writes the answers, and which ones step in when it cannot.", ("provider", "model", "temperature", "top_p")),
    (
        "Cheaper model",
        "For simple messages, if you like, and for all of them once a budget asks for it.",
        (
            *("simple_provider", "simple_model", "simple_max_chars", "simple_not_words"),
            *("classifier_enabled", "classifier_provider", "classifier_model", "classifier_instruction"),
        ),
    ),
    (
        "Limits",
        "How much is sent, how long an answer may be, and how long it is remembered.",
        ("max_output_tokens", "prompt_budget_tokens", "reply_cache_s", "reply_similarity"),
    ),
    (
        "Memory",
        "What the agent keeps about people beyond one conversation.",
        (
            *("memory_enabled", "memory_scope", "memory_limit", "memory_budget_tokens", "memory_threshold", "knowledge"),
            *("facts_by_model", "memory_cap", "memory_days"),
        ),
    ),
    (
        "Conversations",
        "What becomes of conversations that grow long or old.",
        ("summaries", "summary_provider", "summary_model", "conversation_days", "trace_days"),
    ),
    ("Notes", "For your colleagues; never sent to the model.", ("note",)),
)
VERSION_FIELDS: Final = tuple(name for _, _, names in GROUPS for name in names)


class Textarea(widgets.UnfoldAdminTextareaWidget):
    """A text of several lines."""

    # Django's template, unlike unfold's, keeps a text's first line when that is empty.
    template_name = "django/forms/widgets/textarea.html"


class LinesField(forms.CharField):
    """A list of texts, one a line: empty lines and repetitions are left out."""

    def __init__(self, *, base_field: Any = None, max_length: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # how long the list and its lines may be, the model knows

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        lines = (" ".join(line.split()) for line in super().clean(value).splitlines())
        found: dict[str, str] = {}
        for line in filter(None, lines):
            found.setdefault(line.casefold(), line)
        return list(found.values())


class AgentForm(AgentModelForm):
    """What belongs to the agent itself and takes effect at once."""

    class Meta:
        model = Agent
        fields = ("name", "description", "access", "is_active")
        widgets = {
            "name": widgets.UnfoldAdminTextInputWidget(),
            "description": Textarea({"rows": 3}),
            "access": widgets.UnfoldAdminSelectWidget(),
            "is_active": widgets.UnfoldBooleanSwitchWidget(),
        }

    def clean_description(self) -> str:
        return _plain_newlines(self.cleaned_data["description"])


class NewAgentForm(AgentForm):
    """A new agent: its name, its address and its first prompt. Everything else starts with a sensible default."""

    system_prompt = forms.CharField(
        label="Instructions (system prompt)",
        max_length=100_000,
        strip=False,
        error_messages={"required": NO_PROMPT},
        widget=Textarea({"rows": 12, "data-prompt": ""}),
        help_text="Who the agent is, what it knows and how it speaks. You can change it at any time and try it first.",
    )

    class Meta(AgentForm.Meta):
        fields = ("name", "slug", "description", "access")
        widgets = {
            **AgentForm.Meta.widgets,
            "slug": widgets.UnfoldAdminTextInputWidget({"data-slug-from": "id_name", "autocapitalize": "off", "spellcheck": "false"}),
        }
        error_messages = {"slug": {"unique": "Another agent has this address name already. Choose another one."}}

    def clean_system_prompt(self) -> str:
        return _worded(self.cleaned_data["system_prompt"])


class DraftForm(VersionModelForm):
    """Everything that decides how an agent answers, except for the fallbacks."""

    class Meta:
        model = AgentVersion
        fields = VERSION_FIELDS
        field_classes = {"simple_not_words": LinesField}
        widgets = {
            "system_prompt": Textarea({"rows": 18, "data-prompt": "", "spellcheck": "true"}),
            "greeting": Textarea({"rows": 3}),
            "provider": widgets.UnfoldAdminSelectWidget(),
            "model": widgets.UnfoldAdminTextInputWidget({"list": "known-models", "autocapitalize": "off", "spellcheck": "false"}),
            "temperature": widgets.UnfoldAdminDecimalFieldWidget({"step": "0.1", "min": "0", "max": "2"}),
            "top_p": widgets.UnfoldAdminDecimalFieldWidget({"step": "0.01", "min": "0.01", "max": "1"}),
            "simple_provider": widgets.UnfoldAdminSelectWidget(),
            "simple_model": widgets.UnfoldAdminTextInputWidget({"list": "known-models", "autocapitalize": "off", "spellcheck": "false"}),
            "simple_max_chars": widgets.UnfoldAdminIntegerFieldWidget({"min": "0"}),
            "simple_not_words": Textarea({"rows": 4, "spellcheck": "false"}),
            "classifier_enabled": widgets.UnfoldBooleanSwitchWidget(),
            "classifier_provider": widgets.UnfoldAdminSelectWidget(),
            "classifier_model": widgets.UnfoldAdminTextInputWidget(
                {"list": "known-models", "autocapitalize": "off", "spellcheck": "false"}
            ),
            "classifier_instruction": Textarea({"rows": 6, "spellcheck": "true"}),
            "max_output_tokens": widgets.UnfoldAdminIntegerFieldWidget({"min": "1"}),
            "prompt_budget_tokens": widgets.UnfoldAdminIntegerFieldWidget({"min": "100"}),
            "reply_cache_s": widgets.UnfoldAdminIntegerFieldWidget({"min": "0"}),
            "reply_similarity": widgets.UnfoldAdminDecimalFieldWidget({"step": "0.01", "min": "0.7", "max": "1"}),
            "memory_enabled": widgets.UnfoldBooleanSwitchWidget(),
            "memory_scope": widgets.UnfoldAdminSelectWidget(),
            "memory_limit": widgets.UnfoldAdminIntegerFieldWidget({"min": "0", "max": "50"}),
            "memory_budget_tokens": widgets.UnfoldAdminIntegerFieldWidget({"min": "0"}),
            "memory_threshold": widgets.UnfoldAdminDecimalFieldWidget({"step": "0.5", "min": "0", "max": "40"}),
            "knowledge": widgets.UnfoldAdminTextInputWidget({"autocapitalize": "off", "spellcheck": "false"}),
            "facts_by_model": widgets.UnfoldBooleanSwitchWidget(),
            "memory_cap": widgets.UnfoldAdminIntegerFieldWidget({"min": "0"}),
            "memory_days": widgets.UnfoldAdminIntegerFieldWidget({"min": "0"}),
            "summaries": widgets.UnfoldBooleanSwitchWidget(),
            "summary_provider": widgets.UnfoldAdminSelectWidget(),
            "summary_model": widgets.UnfoldAdminTextInputWidget({"list": "known-models", "autocapitalize": "off", "spellcheck": "false"}),
            "conversation_days": widgets.UnfoldAdminIntegerFieldWidget({"min": "0"}),
            "trace_days": widgets.UnfoldAdminIntegerFieldWidget({"min": "0", "max": "365"}),
            "note": widgets.UnfoldAdminTextInputWidget(),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast("forms.ModelChoiceField[Provider]", self.fields["provider"]).empty_label = default_provider_label()
        for name in ("simple_provider", "summary_provider"):
            cast("forms.ModelChoiceField[Provider]", self.fields[name]).empty_label = "the provider that answers"
        cast("forms.ModelChoiceField[Provider]", self.fields["classifier_provider"]).empty_label = "the provider of the cheaper model"
        for field in self.fields.values():
            field.error_messages |= OUT_OF_BOUNDS
        self.fields["system_prompt"].error_messages["required"] = NO_PROMPT
        for name in ("system_prompt", "greeting"):
            cast("forms.CharField", self.fields[name]).strip = False

    def clean_system_prompt(self) -> str:
        return _worded(self.cleaned_data["system_prompt"])

    def clean_knowledge(self) -> list[str]:
        names = list(dict.fromkeys(self.cleaned_data["knowledge"]))
        for name in names:
            if not re.fullmatch(SLUG_PATTERN, name):
                raise ValidationError(f"“{name}” is no name of a collection. {validate_slug.message}")
        return names

    def clean_greeting(self) -> str:
        return _plain_newlines(self.cleaned_data["greeting"])

    def clean_classifier_instruction(self) -> str:
        return _plain_newlines(self.cleaned_data["classifier_instruction"])

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        prompt, budget = data.get("system_prompt"), data.get("prompt_budget_tokens")
        if prompt and budget and (needed := count_tokens(prompt, model=data.get("model") or "")) >= budget:
            self.add_error(
                "prompt_budget_tokens",
                f"The instructions alone have {needed:,} tokens, so nothing is left for the conversation. "
                f"Raise this to at least {needed + max(500, needed // 2):,}, or shorten the instructions.",
            )
        memories = data.get("memory_budget_tokens")
        if data.get("memory_enabled") and budget and memories is not None and memories >= budget:
            self.add_error("memory_budget_tokens", f"Memories may not take the whole prompt budget. Choose less than {budget:,}.")
        return data


class FallbackForm(forms.Form):
    """One fallback model. A row without a provider is no fallback."""

    provider = forms.ChoiceField(required=False, widget=widgets.UnfoldAdminSelectWidget())
    model = forms.CharField(
        required=False,
        max_length=200,
        widget=widgets.UnfoldAdminTextInputWidget(
            {"list": "known-models", "placeholder": "the provider's default model", "autocapitalize": "off", "spellcheck": "false"}
        ),
    )

    def __init__(self, *args: Any, choices: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast("forms.ChoiceField", self.fields["provider"]).choices = choices

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("model") and not data.get("provider"):
            raise ValidationError("Choose who runs this model, or clear its name to leave the row out.")
        return data


_FallbackFormSet: Any = forms.formset_factory(FallbackForm, extra=0, max_num=MAX_FALLBACKS, validate_max=True)


def fallback_forms(data: Any = None, *, version: AgentVersion) -> Any:
    """Return the formset of `version`'s fallbacks, in order, bound to `data` where a form was sent."""
    choices = [("", "— none —"), (DEFAULT_PROVIDER, default_provider_label())]
    choices += [(str(provider.pk), provider.slug) for provider in Provider.objects.all()]
    initial = [
        {"provider": str(fallback.provider_id or DEFAULT_PROVIDER), "model": fallback.model}
        for fallback in version.fallbacks.order_by("position")
    ]
    return _FallbackFormSet(data, prefix="fallbacks", initial=initial or None, form_kwargs={"choices": choices})


def chosen_fallbacks(formset: Any) -> list[tuple[int | None, str]]:
    """Return the valid formset's fallbacks in order, each as (provider id or None for the default, model)."""
    rows = [form.cleaned_data for form in formset.forms if form.cleaned_data.get("provider")]
    return [(None if row["provider"] == DEFAULT_PROVIDER else int(row["provider"]), row["model"]) for row in rows]


def default_provider_label() -> str:
    """Return the words for 'no provider named', with what that means today."""
    provider = default_provider()
    if provider is None:
        return "the default provider (none is set up yet)"
    return f"the default provider ({'built-in demo model' if provider.is_demo else provider.slug})"


def _worded(text: str) -> str:
    if not text.strip():
        raise ValidationError(NO_PROMPT)
    return _plain_newlines(text)


def _plain_newlines(text: str) -> str:
    # Browsers send CRLF; files and the API have LF. One form, or every line would count as changed.
    return text.replace("\r\n", "\n").replace("\r", "\n")
