"""One message reaches a real sink of each kind, in the shape it takes; what goes wrong is said without secrets, in time."""

from __future__ import annotations

import time

import pytest
from asgiref.sync import async_to_sync

from observability.alerts import delivery
from observability.alerts.addresses import Address, address_of
from observability.alerts.delivery import Message, NotTaken, deliver, try_address
from observability.models import TargetKind
from tests.sinks import DISCORD_PATH, SLACK_PATH, black_hole

from .conftest import make_target

pytestmark = pytest.mark.django_db

MESSAGE = Message("Alert: error rate", "NEW: Agent <helper> & co: 3 of 4 turns failed (75 %).", "failure")
take = async_to_sync(deliver)


def test_slack_gets_an_attachment_with_a_colour(slack, slack_target):
    take(MESSAGE, to=slack_target)
    [(path, body)] = slack.taken
    assert path == SLACK_PATH
    [part] = body["attachments"]
    assert part["title"] == "Alert: error rate"
    assert "3 of 4 turns failed (75 %)" in part["text"]
    assert part["color"] == "#A32037"


def test_discord_gets_its_content(discord, discord_target):
    take(MESSAGE, to=discord_target)
    [(path, body)] = discord.taken
    assert path.partition("?")[0] == DISCORD_PATH
    assert "3 of 4 turns failed (75 %)" in str(body)


def test_mail_goes_to_everybody(mail, mail_target):
    take(MESSAGE, to=mail_target)
    assert sorted(message["To"] for message in mail.mails) == ["boss@example.org", "ops@example.org"]
    assert {message["Subject"] for message in mail.mails} == {"Alert: error rate"}
    assert {message["From"] for message in mail.mails} == {"alerts@example.org"}
    assert mail.texts == [MESSAGE.body] * 2


def test_mail_is_handed_in_at_email_url(mail, settings):
    settings.EMAIL_URL = mail.url
    take(MESSAGE, to=make_target(TargetKind.EMAIL, "ops@example.org"))
    assert len(mail.mails) == 1


def test_a_webhook_gets_json_with_its_query_kept(slack):
    take(MESSAGE, to=make_target(TargetKind.WEBHOOK, f"{slack.url}/in/box?token=abc&x=1"))
    [(path, body)] = slack.taken
    assert path == "/in/box?token=abc&x=1"
    assert body == {"title": MESSAGE.title, "text": MESSAGE.body, "type": "failure"}


def test_an_apprise_url_is_for_everything_else(slack):
    take(MESSAGE, to=make_target(TargetKind.APPRISE, f"json://{slack.host}/anything"))
    assert slack.bodies[0]["message"] == MESSAGE.body


@pytest.mark.parametrize("status", [302, 404, 500])
@pytest.mark.parametrize("kind", ["slack", "discord", "webhook"])
def test_a_status_that_is_no_success_is_told(kind, status, slack):
    slack.answers = status
    path = {"slack": SLACK_PATH, "discord": DISCORD_PATH, "webhook": "/s3cr3t"}[kind]
    with pytest.raises(NotTaken, match=f"^it answered with the status {status}$"):
        take(MESSAGE, to=make_target(kind, slack.url + path))
    assert slack.tried == 1, "redirects are not followed"


def test_what_a_mail_server_answers_is_told(mail, mail_target):
    mail.refuses = True
    with pytest.raises(NotTaken, match="the mail server failed: SMTPDataError 451"):
        take(MESSAGE, to=mail_target)


@pytest.mark.parametrize(
    ("kind", "to", "server"),
    [
        ("webhook", "http://localhost:1/s3cr3t", ""),
        ("slack", "http://localhost:1" + SLACK_PATH, ""),
        ("apprise", "json://localhost:1/s3cr3t", ""),
        ("apprise", "json://localhost:1/s3cr3t?redirect=yes", ""),
        ("email", "ops@example.org", "smtp://localhost:1?from=a@example.org"),
    ],
)
def test_private_addresses_are_refused_for_every_kind(kind, to, server, settings):
    settings.OUTBOUND_ALLOWED_HOSTS = []
    with pytest.raises(NotTaken) as refused:
        take(MESSAGE, to=make_target(kind, to, server=server))
    assert "localhost is not a public address" in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


def test_apprise_cannot_look_names_up_or_connect_past_the_guard(slack, settings):
    """Syslog over the network uses sockets of its own, and no HTTP."""
    settings.OUTBOUND_ALLOWED_HOSTS = []
    with pytest.raises(NotTaken):
        take(MESSAGE, to=make_target(TargetKind.APPRISE, "rsyslog://localhost:5140/local5"))


def test_a_target_that_says_nothing_is_left_in_time(monkeypatch):
    monkeypatch.setattr(delivery, "DEADLINE_S", 3.0)
    began = time.monotonic()
    with black_hole() as host, pytest.raises(NotTaken, match=r"did not answer within 3 s|could not be reached"):
        take(MESSAGE, to=make_target(TargetKind.WEBHOOK, f"http://{host}/s3cr3t"))
    assert time.monotonic() - began < 20


def test_nothing_listens_there():
    with pytest.raises(NotTaken, match=r"^it could not be reached: ConnectionError$"):
        take(MESSAGE, to=make_target(TargetKind.WEBHOOK, "http://127.0.0.1:1/s3cr3t"))


def test_an_address_that_cannot_be_read_any_more(slack_target, settings):
    settings.SECRET_KEY = "another" * 10
    with pytest.raises(NotTaken, match="SECRET_KEY changed; enter it again"):
        take(MESSAGE, to=slack_target)


@pytest.mark.parametrize("to", ["nonsense://abc", "tgram://abc"])
def test_an_apprise_url_without_meaning_is_found_out_before_it_is_kept(to):
    with pytest.raises(NotTaken, match="not one that this kind of target has"):
        async_to_sync(try_address)(TargetKind.APPRISE, Address(to))


def test_addresses_are_sealed_and_shown_without_secrets(slack_target, mail_target):
    assert "s3cr3t" not in slack_target.sealed_address
    assert address_of(slack_target).to.endswith(SLACK_PATH)
    assert slack_target.shown_as == "127.0.0.1"
    assert mail_target.shown_as == "ops@example.org, boss@example.org"
