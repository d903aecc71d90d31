"""Takes one message to one target with Apprise, in a process of its own: `python -m observability.alerts.courier`.

Apprise knows a hundred kinds of targets, each with its own way to the network. Here all of them meet the same guard: names stand for
public addresses only, connections go to what was vetted, redirects are not followed, and no program is started. The process knows no
secret but the target's address, and whoever started it ends it when it takes too long.

Reads one JSON object from standard input, a `Parcel`, and answers on standard output with `{"error": ""}` or with what went wrong, in
words that hold nothing of the address but its host. Imports nothing of Django: it starts in a third of a second.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from observability.public_addresses import is_listed, is_public

_MOST_MEMORY_BYTES: Final = 2 * 1024**3
_STARTING_PROGRAMS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "pty.spawn"}
)
_MAIL_MODES: Final = {"smtps": ("ssl", 465), "smtp+starttls": ("starttls", 587), "smtp": ("insecure", 25)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What to take where.

    Attributes:
        kind: of the target: slack, discord, email, webhook or apprise.
        server: of e-mail: the SMTP server, as EMAIL_URL.
        mood: how bad it is: "failure", "warning", "success" or "info". Targets that know colours show it.
        allowed_hosts: OUTBOUND_ALLOWED_HOSTS.
        is_trial: only look whether the address can be understood.
    """

    kind: str
    address: str
    server: str = ""
    title: str = ""
    body: str = ""
    mood: str = "info"
    allowed_hosts: tuple[str, ...] = ()
    is_trial: bool = False

    def packed(self) -> bytes:
        """Return it as the courier reads it."""
        return json.dumps(asdict(self)).encode()


class Refused(OSError):
    """A connection that this server may not make."""


class NotUnderstood(Exception):
    """The address means nothing to Apprise."""


@dataclass(slots=True)
class _Journey:
    """What the guard let through and refused, and what came back: Apprise itself only says that it failed."""

    allowed_hosts: tuple[str, ...]
    vetted: set[str] = field(default_factory=set)
    trouble: str = ""


def main() -> None:
    parcel = Parcel(**{**(given := json.load(sys.stdin)), "allowed_hosts": tuple(given["allowed_hosts"])})
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            error = take(parcel)
        except Exception as failure:
            error = f"it failed: {type(failure).__name__}"
    json.dump({"error": error}, answers)


def take(parcel: Parcel) -> str:
    """Take the parcel and return what went wrong, "" if nothing did. Guards this process for good."""
    import apprise  # late: `Parcel` is used by processes that must not load it

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    try:
        plugin = _plugin(parcel)
    except NotUnderstood as error:
        return str(error)
    if parcel.is_trial:
        return ""
    journey = _Journey(parcel.allowed_hosts)
    _guard(journey)
    _listen_to_answers(journey)
    is_taken = plugin.notify(
        body=parcel.body, title=parcel.title, notify_type=apprise.NotifyType(parcel.mood), body_format=apprise.NotifyFormat.TEXT
    )
    return "" if is_taken else journey.trouble or "it could not be reached, or did not take the message"


_Description = str | dict[str, Any]


def _plugin(parcel: Parcel) -> Any:
    """Return Apprise's plugin for the target.

    Raises:
        NotUnderstood: says what an address looks like.
    """
    from apprise import Apprise, AppriseAsset

    asset = AppriseAsset(app_id="Chatbots", app_desc="Alerts", app_url="", storage_mode="memory")
    asset.http_redirects = False
    make = {"slack": _slack, "discord": _discord, "email": _email, "webhook": _webhook}.get(parcel.kind, _as_it_is)
    try:
        description, changes = make(parcel)
        plugin = Apprise.instantiate(description, asset=asset)
    except ValueError:
        plugin = None
    if plugin is None:
        raise NotUnderstood("the address is not one that this kind of target has")
    for name, value in changes.items():
        setattr(plugin, name, value)
    return plugin


def _as_it_is(parcel: Parcel) -> tuple[_Description, dict[str, Any]]:
    return parcel.address, {}


def _slack(parcel: Parcel) -> tuple[_Description, dict[str, Any]]:
    """Slack's own host, or that of a server which takes what Slack takes."""
    parts = urlsplit(parcel.address)
    if parts.hostname in ("hooks.slack.com", "hooks.slack-gov.com"):
        return parcel.address, {}
    at_slack = parts._replace(scheme="https", netloc="hooks.slack.com").geturl()
    return at_slack, {"webhook_url": f"{parts.scheme}://{parts.netloc}/services"}


def _discord(parcel: Parcel) -> tuple[_Description, dict[str, Any]]:
    """Discord's own host, one of its early ones, or that of a server which takes what Discord takes."""
    parts = urlsplit(parcel.address)
    at_discord = parts._replace(scheme="https", netloc="discord.com").geturl()
    return at_discord, {"notify_url": f"{parts.scheme}://{parts.netloc}/api/webhooks"}


def _email(parcel: Parcel) -> tuple[_Description, dict[str, Any]]:
    server = urlsplit(parcel.server)
    mode, port = _MAIL_MODES.get(server.scheme, ("", 0))
    if not mode or not server.hostname:
        raise NotUnderstood("no mail server is set: EMAIL_URL, or the one of this target")
    sender = parse_qs(server.query).get("from", [unquote(server.username or "") or f"alerts@{server.hostname}"])[0]
    description = {
        "schema": "mailto" if mode == "insecure" else "mailtos",
        "host": server.hostname,
        "smtp_host": server.hostname,
        "port": server.port or port,
        "user": unquote(server.username) if server.username else None,
        "password": unquote(server.password) if server.password else None,
        "secure_mode": mode,
        "from_addr": sender,
        "targets": parcel.address,
        "format": "text",
    }
    return description, {}


def _webhook(parcel: Parcel) -> tuple[_Description, dict[str, Any]]:
    parts = urlsplit(parcel.address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotUnderstood("a webhook's address begins with https://")
    description = {
        "schema": "jsons" if parts.scheme == "https" else "json",
        "host": f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "fullpath": (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        "payload": {"message": "text", "attachments": "", "version": ""},
    }
    return description, {}


def _guard(journey: _Journey) -> None:
    """Let this process connect only to public addresses and to what the operator allows, and start no programs."""
    look_up = socket.getaddrinfo

    def vetted_look_up(host: Any, port: Any, *arguments: Any, **more: Any) -> list[Any]:
        found = look_up(host, port, *arguments, **more)
        name = host.decode() if isinstance(host, bytes) else str(host or "")
        if not is_listed(name, _number(port), allowed=journey.allowed_hosts):
            found = [result for result in found if is_public(str(result[4][0]).partition("%")[0])]
        if not found:
            journey.trouble = f"{name} is not a public address. If this server may call it, the operator adds it to OUTBOUND_ALLOWED_HOSTS."
            raise Refused(journey.trouble)
        journey.vetted.update(str(result[4][0]) for result in found)
        return list(found)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTING_PROGRAMS:
            raise Refused("an alert starts no program")
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and not _may_meet(arguments[1], journey.vetted):
            raise Refused("not an address that was vetted")

    socket.getaddrinfo = vetted_look_up
    sys.addaudithook(watch)


def _may_meet(address: Any, vetted: set[str]) -> bool:
    if address is None:  # on a connection that was let through
        return True
    if not isinstance(address, tuple):  # a socket in the file system
        return False
    host = str(address[0])
    try:
        return host in vetted or is_public(host.partition("%")[0])
    except ValueError:
        # A name: the system would look it up by itself.
        return False


def _number(port: Any) -> int:
    return int(port) if str(port or "").isdigit() else 0


def _listen_to_answers(journey: _Journey) -> None:
    """Note what HTTP and SMTP servers answer: numbers and kinds of errors, nothing that could hold the address."""
    import smtplib

    from requests import RequestException
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def noted_send(self: HTTPAdapter, *arguments: Any, **more: Any) -> Any:
        try:
            response = send(self, *arguments, **more)
        except RequestException as error:
            journey.trouble = journey.trouble or f"it could not be reached: {type(error).__name__}"
            raise
        journey.trouble = f"it answered with the status {response.status_code}"
        return response

    HTTPAdapter.send = noted_send  # type: ignore[method-assign] # of this process, which does nothing else
    for method in ("connect", "login", "sendmail", "starttls"):
        _note_errors(smtplib.SMTP, method, journey)


def _note_errors(owner: Any, method: str, journey: _Journey) -> None:
    original = getattr(owner, method)

    def noted(*arguments: Any, **more: Any) -> Any:
        with _noting(journey):
            return original(*arguments, **more)

    setattr(owner, method, noted)


@contextlib.contextmanager
def _noting(journey: _Journey) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        code = getattr(error, "smtp_code", "")
        journey.trouble = journey.trouble or f"the mail server failed: {type(error).__name__}{f' {code}' if code else ''}"
        raise


if __name__ == "__main__":
    main()
