"""The base of the operator's commands: plans that change nothing, and jobs that are followed to their end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from time import sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from storage import acting
from storage.exceptions import InvalidRequest, StorageError
from storage.jobs.naming import name_of
from storage.models import Job, clock
from storage.models.refusals import UNAVAILABLE
from storage.plans import Table, Words, is_number, size

PAUSE = 0.5  # Seconds between two looks at a job.


class _Parser(CommandParser):
    """A parser whose error messages show the arguments of the caller with special characters escaped."""

    def error(self, message: str) -> Any:
        return super().error(printable(message))


class OperatorCommand(BaseCommand):
    """A command that tells the operator in one line why it cannot do its work."""

    requires_system_checks = ()  # Every start of the system runs the checks.
    silenced = logging.WARNING
    """Log lines up to this level are not written: the command says itself what the services would log."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.__class__ = _Parser  # Django lets no command choose the class of its parser.
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        logging.disable(self.silenced)
        # A single connection fails at once if no server listens; a pool of connections keeps trying for a while.
        connection.settings_dict["OPTIONS"].pop("pool", None)
        try:
            super().run_from_argv(argv)
        except BrokenPipeError:  # A program such as `head` has closed the pipe.
            # Python flushes the output when it exits. The output must go to /dev/null then, because the pipe is closed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    def handle(self, *args: Any, **options: Any) -> None:
        acting.begin(acting.Actor("", acting.COMMAND_LINE))
        try:
            _require_text(options)
            self.act(options)
        except CommandError as error:
            raise CommandError(printable(str(error)), returncode=error.returncode) from error
        except StorageError as error:
            raise CommandError(printable(complaint(error))) from error
        except UNAVAILABLE as error:
            message = "PostgreSQL does not answer: the system does not run, or STORAGE_DIR or DATABASE_URL is another's"
            raise CommandError(message) from error
        finally:
            acting.begin(None)

    def act(self, options: Mapping[str, Any]) -> None:
        """Carry out the command."""
        raise NotImplementedError


class Operation(OperatorCommand):
    """A command that queues maintenance jobs, or says what they would do."""

    def add_arguments(self, parser: CommandParser) -> None:
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
        how.add_argument("--no-wait", action="store_true", help="print the id of the job, and do not wait for its end")

    def act(self, options: Mapping[str, Any]) -> None:
        if options["dry_run"]:
            self.print(self.plan(options))
            return
        jobs = self.begin(options)
        if options["no_wait"]:
            for job in jobs:
                self.stdout.write(str(job.pk))
        else:
            self._follow(jobs)

    def print(self, words: Words) -> None:
        """Print sentences and tables."""
        for part in words:
            for line in table(part.rows) if isinstance(part, Table) else [part]:
                self.stdout.write(line)

    def plan(self, options: Mapping[str, Any]) -> Words:
        """Say what would be done."""
        raise NotImplementedError

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        """Start the operation, and return the jobs that do the work."""
        raise NotImplementedError

    def conclude(self, job: Job) -> None:
        """Print what the operator should know when a job has succeeded."""
        self.stdout.write(f"{name_of(job)}: succeeded")
        for line in table([(f"  {name}", number(name, value)) for name, value in sorted((job.result or {}).items())]):
            self.stdout.write(line)

    def _follow(self, jobs: Sequence[Job]) -> None:
        """Wait for the end of each job in turn.

        Raises:
            CommandError: a job has not succeeded, or the operator does not want to wait.
        """
        failures = []
        for position, job in enumerate(jobs):
            try:
                self._await_end(job)
            except KeyboardInterrupt:
                self.stdout.write("")
                left = jobs[position:]
                going_on = ", ".join(name_of(other) for other in left)
                how = "; ".join(f"manage.py cancel {other.pk}" for other in left)
                raise CommandError(f"not waiting any more; {going_on} goes on. To end it: {how}") from None
            if job.state == Job.State.SUCCEEDED:
                self.conclude(job)
            else:
                failures.append(f"{name_of(job)} {job.state}{reason(job)}")
        if failures:
            raise CommandError("; ".join(failures))

    def _await_end(self, job: Job) -> None:
        """Show the job's progress whenever it changes, until the job has ended."""
        on_terminal = self.stdout.isatty()
        shown = ""
        while True:
            job.refresh_from_db()
            line = "" if job.is_terminal else f"{name_of(job)}: {progress(job)}"
            if line != shown and on_terminal:
                self.stdout.write(f"\r\x1b[K{line}", ending="")
                self.stdout.flush()
            elif line and line != shown:
                self.stdout.write(line)
            if job.is_terminal:
                return
            shown = line
            sleep(PAUSE)


def _require_text(options: Mapping[str, Any]) -> None:
    """Refuse words that are not UTF-8, before anything is done. Only a path may have any bytes.

    Raises:
        CommandError: a word is not UTF-8.
    """
    for value in options.values():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and any("\ud800" <= character <= "\udfff" for character in word):
                raise CommandError(f"'{word}' is not UTF-8")


def printable(text: object) -> str:
    """A text in one line. Characters that cannot be printed, such as those that steer a terminal, are escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


def complaint(error: StorageError) -> str:
    """An error in one line, with its messages about single fields."""
    fields = error.errors if isinstance(error, InvalidRequest) else {}
    more = [message for messages in fields.values() for message in messages if message not in str(error)]
    return "; ".join([str(error), *more])


def progress(job: Job) -> str:
    """The progress of a job, an estimate of the time left, and the thing that the job waits for."""
    if job.waiting_for:
        return f"{_share(job)}, waiting for {job.waiting_for}"
    left = _time_left(job)
    return f"{_share(job)}, about {left} left" if left else _share(job)


def _share(job: Job) -> str:
    return f"{100 * job.done // job.total} % ({job.done} of {job.total})" if job.total else job.state


def _time_left(job: Job) -> str:
    """The time that a running job still takes if it goes on as fast as it has gone; empty if that is not known yet."""
    if job.state != Job.State.RUNNING or job.started_at is None or not 0 < job.done < job.total:
        return ""
    seconds = (clock.now() - job.started_at).total_seconds() * (job.total - job.done) / job.done
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def reason(job: Job) -> str:
    """The reason why a job failed, as the end of a sentence; empty if there is none."""
    return f": {job.error['title']}: {job.error['detail']}" if job.error else ""


def number(name: str, value: Any) -> str:
    """A figure of a job's result, as text. ``name`` shows whether the figure is a number of bytes."""
    return size(value) if name.endswith("bytes") else str(value)


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table. A column of numbers is aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    lines = [""] * len(cells)
    for column in zip(*cells, strict=True):
        width = max(map(len, column))
        numeric = all(map(is_number, column[1:]))
        aligned = [cell.rjust(width) if numeric else cell.ljust(width) for cell in column]
        lines = [f"{line}  {cell}" if line else cell for line, cell in zip(lines, aligned, strict=True)]
    return [line.rstrip() for line in lines]
