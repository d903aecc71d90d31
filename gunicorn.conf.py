"""How gunicorn serves this project, for the Procfile and for `make run` alike (which adds its own --bind)."""

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from chatbot_site.capacity import web_workers
from chatbot_site.settings.environment import env_file, read_environment
from chatbot_site.tokenizer import place_ranks
from observability.logs import logging_settings
from observability.slots import FOLDER_VARIABLE, make_folder

try:
    environment = read_environment(files=(env_file(),))
except ImproperlyConfigured as error:
    sys.exit(str(error))


def _listens_on_ipv6() -> bool:
    try:
        with socket.create_server(("::", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


# [::] takes IPv4 as well. Some container hosts have no IPv6 at all.
bind = f"{'[::]' if _listens_on_ipv6() else '0.0.0.0'}:{environment.port}"  # noqa: S104 - behind a host's proxy
worker_class = "chatbot_site.webworker.WebWorker"
workers = environment.web_concurrency or web_workers()
# Streams are long, so they are bounded by turns (CHAT_MAX_CONCURRENT_TURNS, with a clear 503), not by connections.
worker_connections = 2 * environment.chat_max_concurrent_turns + 100
# A client that leaves cancels its turn at once, not three seconds later.
asgi_disconnect_grace_period = 0
# Longer than the 60 s for which common proxies keep their connections, so that they never write into a closed one.
keepalive = 75
# Hosts kill a process 30 s after asking it to stop; gunicorn kills its workers after this many.
graceful_timeout = 25
TO_STORE_S = 5
# Its default is a socket in the home folder, through which anybody with that account commands the server.
control_socket_disable = True
# Each request is logged by chatbot_site.visits, with its id.
logger_class = "chatbot_site.webworker.ServerLogger"
# What gunicorn itself says goes where all else goes, in the same shape.
_is_development = os.environ.get("DJANGO_SETTINGS_MODULE", "").endswith(".dev")
logconfig_dict = logging_settings(level=environment.log_level, json=not _is_development)
logconfig_dict["loggers"] |= {"gunicorn.error": {"level": "INFO", "propagate": True}}
# The heartbeat file must not wait for a busy disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - gunicorn makes a private file there


def on_starting(server: object) -> None:
    """Put the tokenizer's ranks in place before the workers start, and an empty folder for what they count; they inherit where."""
    folder = environment.tiktoken_cache_dir or environment.data_dir / "tokenizer"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(place_ranks(Path(folder)))
    # In memory where there is such a folder: what is counted is written all the time, and means nothing to the next server.
    os.environ[FOLDER_VARIABLE] = str(make_folder(worker_tmp_dir))


def on_exit(server: object) -> None:
    """Remove what the workers counted."""
    shutil.rmtree(os.environ[FOLDER_VARIABLE], ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """Let a worker stop waiting a while before gunicorn kills it, so that what it interrupts is stored.

    Both count the same seconds otherwise, and the worker begins later. Its configuration is a copy: the arbiter's stays.
    """
    worker.cfg.set("graceful_timeout", max(1, worker.cfg.graceful_timeout - TO_STORE_S))
