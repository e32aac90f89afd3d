"""The checks of the running programs: they show their versions and settings in the names of their sessions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from django.conf import settings
from django.db import connection

from occsite.doctor.findings import Finding, ok, problem, warning
from occsite.launch.programs import BACKGROUND, FOREGROUND
from occsite.signature import COMMAND, Signature, signature
from storage.cluster import clocks
from storage.conf import VERSION, configuration
from storage.models import Cluster

HERE = "this API"  # ``clocks.differences`` uses this name for the process that calls it.


def versions_agree() -> Iterator[Finding]:
    running = _running()
    missing = [program for program in (*FOREGROUND, *BACKGROUND) if program not in {s.program for s in running}]
    if missing:
        yield problem(f"not connected to PostgreSQL: {', '.join(missing)}", "start it, and read its log")
    others = sorted(f"{s.program} {s.version}" for s in running if s.version != VERSION)
    if others:
        yield problem(f"other versions than {VERSION} run: {', '.join(others)}", "restart these programs")
    if not missing and not others:
        yield ok(f"{', '.join(sorted({s.program for s in running}))} run, all of version {VERSION}")


def settings_agree() -> Iterator[Finding]:
    conf, cluster = configuration(), Cluster.load()
    mine = Signature.parse(signature(COMMAND, conf, settings.SECRET_KEY))
    assert mine is not None
    differing = list(_differing(mine))
    yield from differing
    if conf.replication_factor > cluster.num_nodes:
        yield problem(
            f"REPLICATION_FACTOR is {conf.replication_factor}, and there are {cluster.num_nodes} nodes",
            "lower it or add nodes: the next start is refused",
        )
    reshaped = (conf.n_prime, conf.tau) != (cluster.base_n_prime, cluster.tau)
    if reshaped:
        yield warning(
            f"N_PRIME {conf.n_prime} and TAU {conf.tau} are not those of the cluster, "
            f"{cluster.base_n_prime} and {cluster.tau}",
            "restart the service to have all sketches rebuilt, or set the former values",
        )
    if conf.debug:
        yield warning("DEBUG is true: errors show the code to clients", "set DEBUG=false")
    if not differing and conf.replication_factor <= cluster.num_nodes and not reshaped and not conf.debug:
        yield ok("all programs have the settings of this command")


def _differing(mine: Signature) -> Iterator[Finding]:
    """Settings of running programs that differ from those of this command. So the programs may differ, too."""
    programs: dict[str, set[str]] = defaultdict(set)
    for running in _running():
        for name in mine.differences(running):
            programs[name].add(running.program)
    names: dict[str, list[str]] = defaultdict(list)
    for name, which in programs.items():
        names[", ".join(sorted(which))].append(name)
    for words, differing in names.items():
        yield warning(
            f"{words} and this command differ in {', '.join(differing)}",
            "restart these programs with the new value, or run commands with the environment of the service",
        )


def clocks_agree() -> Iterator[Finding]:
    offsets = clocks.differences()
    for program, seconds in offsets.items():
        name = "this machine" if program == HERE else program
        yield warning(f"the clock of {name} is {seconds:+.0f} s ahead of PostgreSQL's", "set both by NTP")
    if not offsets:
        yield ok(f"no clock differs from PostgreSQL's by more than {clocks.TOLERATED:.0f} s")


def _running() -> set[Signature]:
    """The programs that are connected to PostgreSQL, without management commands."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()")
        names = [name for (name,) in cursor.fetchall()]
    found = {parsed for name in names if name and (parsed := Signature.parse(name))}
    return {parsed for parsed in found if parsed.program != COMMAND}
