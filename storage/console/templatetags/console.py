"""Filters of the console's templates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from storage.console import words

register = template.Library()


@register.filter
def size(count: float) -> str:
    return words.size(count)


@register.filter
def mib(count: float | None) -> str:
    return "–" if count is None else words.size(count * words.MIB)


@register.filter
def when(value: str | datetime | None) -> SafeString | str:
    """A time in words; the exact time is its title."""
    then = words.moment(value)
    return "–" if then is None else _marked(then, words.ago(then, timezone.now()))


@register.filter
def until(value: str | datetime) -> SafeString:
    """A time ahead in words; the exact time is its title."""
    then = words.moment(value)
    assert then is not None
    return _marked(then, words.ahead(then, timezone.now()))


@register.filter
def condition(file: dict[str, Any]) -> SafeString:
    """The state of a file's copies, with a dot of its colour."""
    level, text = words.condition(file)
    return format_html('<span class="state {}">{}</span>', level, text)


@register.filter
def job_state(job: dict[str, Any]) -> SafeString:
    """The state of a job, with a dot of its colour."""
    level, text = words.JOB_STATES[job["state"]]
    lack = words.LACKS.get(job.get("waiting_for") or "")
    return format_html('<span class="state {}">{}{}</span>', level, text, f": {lack}" if lack else "")


@register.filter
def job_kind(kind: str) -> str:
    return words.JOB_KINDS.get(kind, kind)


@register.filter
def sentence(text: str) -> str:
    return words.sentence(text)


@register.filter
def visible(name: str) -> SafeString:
    """A name in which invisible characters are shown: they make different names look alike."""
    parts = words.INVISIBLE.split(name)
    return format_html_join("", "{}", ((_mark(part) if words.INVISIBLE.fullmatch(part) else part,) for part in parts))


@register.filter
def spelt(name: str) -> str:
    """A file's name as ``visible`` shows it, for a place that takes no markup."""
    return words.visible(name)


@register.filter
def is_troubled(file: dict[str, Any]) -> bool:
    return words.condition(file)[0] != "good"


@register.filter(name="words")
def in_words(name: str) -> str:
    """The name of a member of a document as a label."""
    return name.replace("_", " ").capitalize()


@register.filter
def svg(value: float) -> str:
    """A number as SVG wants it, whatever the language of the page."""
    return f"{value:.2f}"


@register.filter
def add_svg(value: float, more: float) -> str:
    return f"{value + more:.2f}"


def _mark(character: str) -> SafeString:
    return format_html('<span class="mark" title="an invisible character">U+{}</span>', f"{ord(character):04X}")


def _marked(then: datetime, text: str) -> SafeString:
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', then.isoformat(), f"{then:%Y-%m-%d %H:%M:%S} UTC", text
    )
