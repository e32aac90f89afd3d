from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError

from occsite.doctor.examination import examine
from occsite.doctor.findings import Level
from storage.management.operation import OperatorCommand

WIDTH = 14  # the longest name of a check


class Command(OperatorCommand):
    help = (
        "Looks for what is wrong with this installation, and says what to do about it. Works while PostgreSQL or Redis "
        "is away. The exit status is 0 without a problem, 1 with one, and 2 if the doctor could not run."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            super().handle(*args, **options)
        except CommandError as error:
            raise CommandError(str(error), returncode=2) from error

    def act(self, options: Mapping[str, Any]) -> None:
        levels: Counter[Level] = Counter()
        for name, finding in examine():
            levels[finding.level] += 1
            self.stdout.write(f"{finding.level:<7}  {name:<{WIDTH}}  {finding.found}")
            if finding.remedy:
                self.stdout.write(f"{'':<7}  {'':<{WIDTH}}  -> {finding.remedy}")
        self.stdout.write(", ".join(_number(levels[level], level) for level in (Level.PROBLEM, Level.WARNING)))
        if levels[Level.PROBLEM]:
            sys.exit(1)


def _number(count: int, level: Level) -> str:
    return f"{count} {level}{'' if count == 1 else 's'}"
