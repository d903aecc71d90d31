"""`manage.py reembed`: change the embedding model of long-term memory while it is in use."""

from __future__ import annotations

import asyncio
import time
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from memory.embedders.client import EmbeddingFailed
from memory.reembedding import NothingToChange, Progress, Reembedding, drop_space, model_to_change_to, unused_spaces
from observability.outbound import close_transports

_REPORT_EVERY_S: Final = 2.0


class Command(BaseCommand):
    help = (
        "Embed every memory with the model that EMBEDDING_NEXT_* name (else EMBEDDING_*), and then use that one. Memory goes on "
        "meanwhile. Broken off, run it again: it goes on where it stopped."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say how much there is to do")
        parser.add_argument("--drop-old", action="store_true", help="delete the vectors of models that are no longer in use")

    def handle(self, *args: Any, dry_run: bool, drop_old: bool, **options: Any) -> None:
        self._reported = 0.0
        try:
            if drop_old:
                self._drop(dry_run=dry_run)
            else:
                self._change(dry_run=dry_run)
        except NothingToChange as reason:
            self.stdout.write(str(reason))
        except KeyboardInterrupt:
            raise CommandError("Stopped. Run it again to go on.", returncode=130) from None

    def _change(self, *, dry_run: bool) -> None:
        model = model_to_change_to()
        if model is None:
            raise CommandError("There is no model to change to. Set EMBEDDING_NEXT_MODEL, and EMBEDDING_NEXT_BASE_URL where it differs.")
        with asyncio.Runner() as runner:
            try:
                change = Reembedding(model, runner=runner)
                work = change.count()
                self.stdout.write(
                    f"From {change.source} to {change.target}: {work.texts:,} texts in {work.memories:,} memories, "
                    f"about {work.tokens:,} tokens."
                )
                if not dry_run:
                    self._tell_end(change, change.run(total=work.texts, report=self._report))
            except EmbeddingFailed as error:
                raise CommandError(f"{model} does not answer: {error}. What was embedded is kept; run this again to go on.") from error
            finally:
                runner.run(close_transports())

    def _tell_end(self, change: Reembedding, progress: Progress) -> None:
        if progress.refused:
            self.stdout.write(
                f"{progress.refused:,} memories have nothing that {change.model} embeds; they are found by their words alone."
            )
        self.stdout.write(self.style.SUCCESS(f"{progress.done:,} texts embedded. Memory now uses {change.target}."))
        self.stdout.write(
            "Give EMBEDDING_* the values of EMBEDDING_NEXT_* and remove the latter. Once you are content, "
            "`manage.py reembed --drop-old` deletes the former vectors."
        )

    def _report(self, progress: Progress) -> None:
        if time.monotonic() - self._reported < _REPORT_EVERY_S:
            return
        self._reported = time.monotonic()
        total = max(progress.total, progress.done)
        self.stdout.write(f"{progress.done:,} of {total:,} texts, {progress.a_second:,.0f} a second, {_duration(progress.left_s)} left")
        self.stdout.flush()

    def _drop(self, *, dry_run: bool) -> None:
        spaces = unused_spaces()
        if not spaces:
            self.stdout.write("There are only vectors that are in use, or being changed to.")
        for space in spaces:
            if dry_run:
                self.stdout.write(f"{space} is not in use: its vectors would be deleted.")
            else:
                deleted = drop_space(space, report=self._report_deleted)
                self.stdout.write(f"{deleted:,} vectors of {space} deleted.")

    def _report_deleted(self, deleted: int) -> None:
        if time.monotonic() - self._reported >= _REPORT_EVERY_S:
            self._reported = time.monotonic()
            self.stdout.write(f"{deleted:,} vectors deleted")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
