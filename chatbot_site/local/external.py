"""Checks of a PostgreSQL or Redis that the environment names instead of the embedded ones."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import psycopg
import redis

from .refusal import Refusal

OLDEST_POSTGRESQL: Final = 15
OLDEST_REDIS: Final = (6, 2)
CONNECT_S: Final = 5


def check_database(url: str) -> None:
    """Prove that `url` is a PostgreSQL that this server can use.

    Raises:
        Refusal: it cannot be reached, is too old, or pgvector cannot be had.
    """
    place = _without_password(url)
    try:
        with psycopg.connect(re.sub("^postgres:", "postgresql:", url), connect_timeout=CONNECT_S) as connection:
            version = connection.info.server_version // 10_000
            if version < OLDEST_POSTGRESQL:
                raise Refusal(f"DATABASE_URL names a PostgreSQL {version}. Use 15 to 18, or leave DATABASE_URL out for the embedded one.")
            _check_vector(connection, place)
    except psycopg.OperationalError as error:
        why = str(error).strip().splitlines()[-1]
        raise Refusal(
            f"DATABASE_URL cannot be reached ({place}: {why}). Start that server or correct the address, "
            "or leave DATABASE_URL out for the embedded one."
        ) from None
    except psycopg.ProgrammingError as error:
        raise Refusal(f"DATABASE_URL is not usable ({place}: {error}). Correct it, or leave it out for the embedded one.") from None


def _check_vector(connection: psycopg.Connection, place: str) -> None:
    found = connection.execute("SELECT installed_version FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    if found is None:
        raise Refusal(
            f"The PostgreSQL of DATABASE_URL ({place}) lacks the pgvector extension. Install it there (Debian: postgresql-NN-pgvector), "
            "or leave DATABASE_URL out for the embedded one."
        )
    if found[0] is None:
        try:
            connection.execute("CREATE EXTENSION vector")
        except psycopg.errors.InsufficientPrivilege:
            raise Refusal(
                f"The user of DATABASE_URL ({place}) may not create the pgvector extension. "
                "Have an administrator run there: CREATE EXTENSION vector"
            ) from None
        connection.rollback()  # the migration creates it


def check_redis(url: str) -> None:
    """Prove that `url` is a Redis or Valkey that this server can use.

    Raises:
        Refusal: it cannot be reached or is too old.
    """
    place = _without_password(url)
    remedy = "Start that server or correct the address, or leave REDIS_URL out for the embedded one."
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S) as client:
            version = str(client.info("server")["redis_version"])
    except (redis.RedisError, ValueError, OSError) as error:
        raise Refusal(f"REDIS_URL cannot be reached ({place}: {error}). {remedy}") from None
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        raise Refusal(f"REDIS_URL names a Redis {version}. Use 6.2 or newer, or leave REDIS_URL out for the embedded one.")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
