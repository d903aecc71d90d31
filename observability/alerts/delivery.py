"""One message to one target, within a deadline. Whatever goes wrong comes back in words that hold no secret."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
from django.conf import settings

from observability.alerts.addresses import Address, address_of
from observability.alerts.courier import Parcel
from observability.models import AlertTarget, TargetKind
from observability.outbound import OutboundRefused
from observability.sealing import Unreadable

DEADLINE_S: Final = 20.0
"""How long a target may take; then it is tried again later."""
_PROJECT_DIR: Final = Path(__file__).resolve().parents[2]
# All that the courier needs of the environment: it is not to know this server's secrets.
_ITS_ENVIRONMENT: Final = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "VIRTUAL_ENV"})


class NotTaken(Exception):
    """A target did not take a message. The text says why, without anything secret."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a target is told. `mood`: "failure", "warning", "success" or "info"."""

    title: str
    body: str
    mood: str = "info"


async def deliver(message: Message, *, to: AlertTarget) -> None:
    """Take `message` to a target.

    Raises:
        NotTaken: it did not take it, or not within `DEADLINE_S`.
    """
    parcel = _parcel(to.kind, _readable_address(to), message)
    if error := await _send_courier(parcel):
        raise NotTaken(error)


async def try_address(kind: str, address: Address) -> None:
    """Look whether `address` can be understood, without calling anybody.

    Raises:
        NotTaken: it cannot.
    """
    if error := await _send_courier(_parcel(kind, address, Message("", ""), is_trial=True)):
        raise NotTaken(error)


async def post_to_webhook(client: httpx2.AsyncClient, message: Message) -> None:
    """Take `message` to ALERT_WEBHOOK_URL, as Slack (`text`) and Discord (`content`) take it.

    Raises:
        NotTaken: it did not take it.
    """
    text = f"{message.title}\n{message.body}"
    try:
        async with asyncio.timeout(DEADLINE_S):
            response = await client.post(settings.ALERT_WEBHOOK_URL, json={"text": text, "content": text}, timeout=DEADLINE_S)
    except OutboundRefused as error:
        raise NotTaken(str(error)) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        raise NotTaken(f"it could not be reached: {type(error).__name__}") from None
    if not response.is_success:
        raise NotTaken(f"it answered with the status {response.status_code}")


def _readable_address(target: AlertTarget) -> Address:
    try:
        return address_of(target)
    except Unreadable:
        raise NotTaken("its address cannot be read, because SECRET_KEY changed; enter it again") from None


def _parcel(kind: str, address: Address, message: Message, *, is_trial: bool = False) -> Parcel:
    return Parcel(
        kind=kind,
        address=address.to,
        server=address.mail_server if kind == TargetKind.EMAIL else "",
        title=message.title,
        body=message.body,
        mood=message.mood,
        allowed_hosts=tuple(settings.OUTBOUND_ALLOWED_HOSTS),
        is_trial=is_trial,
    )


async def _send_courier(parcel: Parcel) -> str:
    try:
        courier = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "observability.alerts.courier"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_PROJECT_DIR,
            env={name: value for name, value in os.environ.items() if name in _ITS_ENVIRONMENT} | {"HOME": os.devnull},
        )
    except OSError as error:
        return f"the process that sends alerts could not be started: {type(error).__name__}"
    try:
        async with asyncio.timeout(DEADLINE_S):
            answer, _ = await courier.communicate(parcel.packed())
        return str(json.loads(answer)["error"])
    except TimeoutError:
        return f"it did not answer within {DEADLINE_S:.0f} s"
    except (ValueError, KeyError):
        return "the process that sends alerts ended early; see that there is memory for it"
    finally:
        if courier.returncode is None:
            courier.kill()
            await courier.wait()
