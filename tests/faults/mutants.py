"""Mutants of the code: faults that are made on purpose, each by taking out one guard. The mutant's scenario must fail.

An entry of ``MUTANTS`` has the text of a guard, the text that replaces it, the scenario that must then fail, and words
of the failure's message. The text of the guard must be in its file exactly once. A test therefore fails after a change
of the guard until the entry is changed too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.support.system import PROJECT

ASSERTED = re.compile("assert |AssertionError")  # The message of a failed assertion begins like this.
LIMIT = 1200.0  # Seconds for one run of scenarios; the machine may be busy with other work.

# Variables of this test run that the run in the copy must not inherit: that run has its own servers and state.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "STORAGE_DIR", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS")


@dataclass(frozen=True)
class Mutant:
    """A change of the code that removes one guard.

    Attributes:
        name: what the project does wrong without the guard.
        file: the file of the guard.
        edits: old text → new text.
        scenario: the test that must fail, below ``tests``.
        symptom: words in the message of the failure.
    """

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    scenario: str
    symptom: str


MUTANTS = (
    Mutant(
        "reclaim does not look at the references again",
        "storage/replicas/removing.py",
        (("    return [chunk for chunk in chunks if is_spare(chunk)]\n", "    return list(chunks)\n"),),
        "faults/test_guards.py::test_a_removal_that_was_planned_spares_a_chunk_that_is_needed_again",
        "copies that are needed went into the trash",
    ),
    Mutant(
        "reclaim does not look for holds of backups",
        "storage/services/reclaim.py",
        (("if not is_held or Hold.last_end():", "if not is_held:"),),
        "occsite/backup/test_taking.py::test_chunks_that_are_deleted_during_a_backup_are_in_it",
        "reclaim ran during a backup",
    ),
    Mutant(
        "chunks are not pinned",
        "storage/models/upload.py",
        (
            (
                "                SELECT upload, chunk.id, factor FROM wanted JOIN chunk USING (hash)\n",
                "                SELECT upload, chunk.id, factor FROM wanted JOIN chunk USING (hash) WHERE false\n",
            ),
        ),
        "faults/test_guards.py::test_what_an_upload_has_found_is_not_reclaimed_before_it_is_recorded",
        "copies that an upload relies on were reclaimed",
    ),
    Mutant(
        "commits carry no fencing token",
        "storage/models/job_queue.py",
        (
            ("ON j.id = w.id AND j.fence = w.fence", "ON j.id = w.id"),
            ("filter(pk=job.pk, fence=job.fence, state", "filter(pk=job.pk, state"),
        ),
        "faults/test_guards.py::test_a_worker_that_lost_its_lease_commits_nothing_while_its_successor_works",
        "a worker without a lease has ended the job",
    ),
    Mutant(
        "chunks are counted after they were written",
        "storage/replicas/writing.py",
        (
            ("            counting.count(self.topology, _by_node(wave), ensure)\n            ensure = {}\n", ""),
            (
                "            self._write(wave, waves)\n",
                "            self._write(wave, waves)\n"
                "            counting.count(self.topology, _by_node(wave), ensure)\n"
                "            ensure = {}\n",
            ),
        ),
        "faults/test_guards.py::test_a_chunk_is_counted_before_it_is_written",
        "about to be written to three nodes, and counted on []",
    ),
    Mutant(
        "a trim does not read the other copies back",
        "storage/replicas/removing.py",
        (("    good, _ = verified(others)\n", "    good = others\n"),),
        "faults/test_guards.py::test_a_surplus_copy_stays_if_the_others_have_gone_bad_since_the_plan",
        "a copy went although too few of the others were good",
    ),
    Mutant(
        "volumes are not told apart by their identity",
        "storage/volumes/directory.py",
        (("        if self.expected is not None and not self._read", "        if False and not self._read"),),
        "faults/test_disks.py::test_empty_mount_points_never_say_that_a_file_is_gone",
        "410",
    ),
    Mutant(
        "bytes are not hashed when they are read",
        "storage/replicas/finding.py",
        (("    return hashlib.sha256(data).hexdigest() == chunk_hash", "    return True"),),
        "faults/test_damage.py::test_the_copies_that_are_left_serve_and_mend[flipped]",
        "bytes with the hash",
    ),
    Mutant(
        "the last copies are quarantined too",
        "storage/replicas/judging.py",
        (("    if not good:\n", "    if not good and not suspects:\n"),),
        "faults/test_damage.py::test_when_all_copies_are_bad_the_error_is_clean_and_nothing_is_thrown_away[first]",
        "bad copies were thrown away",
    ),
    Mutant(
        "a chunk is forgotten while a node that may have it does not answer",
        "storage/services/reclaim.py",
        (("if not (answers.silent or holders)", "if not holders"),),
        "faults/test_guards.py::test_a_chunk_is_not_forgotten_before_every_node_has_been_asked",
        "the row was forgotten",
    ),
    Mutant(
        "a full counter is counted down",
        "sketches/scripts.py",
        (("return value > 0 and value < tau and value - 1", "return value > 0 and value - 1"),),
        "faults/test_guards.py::test_a_counter_that_is_full_denies_nothing_when_the_others_are_gone",
        "a full counter was counted down",
    ),
    Mutant(
        "a replica is renamed before its bytes are durable",
        "storage/volumes/directory.py",
        (
            (
                "            for descriptor in opened:\n                os.fsync(descriptor)\n",
                "            for descriptor in opened:\n",
            ),
        ),
        "faults/test_fsync.py::test_what_a_verb_has_done_survives_a_power_cut[write]",
        "had its name before its bytes were durable",
    ),
    Mutant(
        "the directory of a new replica is not synced",
        "storage/volumes/directory.py",
        (("    for parent in set(parents.values()):\n", "    for parent in ():\n"),),
        "faults/test_fsync.py::test_what_a_verb_has_done_survives_a_power_cut[write]",
        "the name",
    ),
    Mutant(
        "a copy that was found is not synced",
        "storage/volumes/filesystem.py",
        (("                os.fsync(replica)\n", "                pass\n"),),
        "faults/test_fsync.py::test_what_a_verb_has_done_survives_a_power_cut[settle]",
        "the bytes of",
    ),
    Mutant(
        "a record is not synced",
        "storage/volumes/packs/volume.py",
        (("        os.fdatasync(writer.pack.descriptor)\n", "        pass\n"),),
        "faults/test_fsync.py::test_a_record_is_durable_before_the_index_has_it[the same pack]",
        "a record or its pack would be gone",
    ),
    Mutant(
        "changes of state in an index are not synced",
        "storage/volumes/packs/connection.py",
        (("{'FULL' if durable else 'NORMAL'}", "NORMAL"),),
        "faults/test_fsync.py::test_a_change_of_state_is_durable_before_it_is_told_and_before_a_hole_is_punched[trash]",
        "the change would be gone after a power cut",
    ),
    Mutant(
        "nobody looks for records that an index has lost",
        "storage/volumes/packs/recovery.py",
        (("            if pack.lock():\n", "            if False:\n"),),
        "storage/volumes/packs/test_recovery.py"
        "::test_whatever_a_power_cut_takes_from_the_index_acknowledged_replicas_are_found",
        "acknowledged, but not found",
    ),
    Mutant(
        "an older index is believed",
        "storage/volumes/packs/connection.py",
        (("found[2] < read_serial(self._serial)", "False"),),
        "storage/volumes/packs/test_recovery.py::test_the_index_of_yesterday_is_not_believed",
        "the index of yesterday was believed",
    ),
    Mutant(
        "an index stays in use while another one is made",
        "storage/volumes/packs/index.py",
        (("        (folder / NAME).rename(folder / ASIDE)\n", "        pass\n"),),
        "storage/volumes/packs/test_processes.py::test_a_change_while_the_index_is_made_again_is_not_lost[write_two]",
        "acknowledged, but not in the new index",
    ),
    Mutant(
        "a 202 does not wait for its bytes",
        "storage/services/intake.py",
        (("        if durable:\n            files.sync(", "        if False:\n            files.sync("),),
        "faults/test_fsync.py::test_a_202_is_sent_after_its_bytes_are_durable",
        "sent when only []",
    ),
    Mutant(
        "an older database condemns what it does not know",
        "storage/replicas/orphans.py",
        (("        generations.require_known(topology.members)\n", "        pass\n"),),
        "storage/cluster/test_generations.py::test_an_older_database_is_told_of_and_refused",
        "an older database has condemned what it does not know",
    ),
    Mutant(
        "an older database reclaims",
        "storage/services/reclaim.py",
        (("    generations.require_known(members)\n", ""),),
        "storage/cluster/test_generations.py::test_what_was_acknowledged_under_either_of_two_databases_stays[nothing]",
        "an older database has removed what the newer one needs",
    ),
    Mutant(
        "volumes do not learn under which database they are written to",
        "storage/replicas/writing.py",
        (("    generations.before_writing(topology)\n", ""),),
        "storage/cluster/test_generations.py::test_an_older_database_is_told_of_and_refused",
        "the older database is not recognised",
    ),
    Mutant(
        "a database takes away what another one has left on a volume",
        "storage/cluster/generations.py",
        (("(*(foreign if len(foreign) < GENERATIONS else (MANY,)), current.name)", "(current.name,)"),),
        "storage/cluster/test_generations.py::test_what_was_acknowledged_under_either_of_two_databases_stays[nothing]",
        "an older database has removed what the newer one needs",
    ),
    Mutant(
        "a rebuild takes a listing for granted",
        "storage/services/rebuild.py",
        (("    if missed:\n", "    if False:\n"),),
        "storage/services/test_rebuild.py::test_copies_that_vanished_are_noticed_by_the_next_rebuild_and_made_again",
        "and the rebuild at its end has asked for no other one",
    ),
    Mutant(
        "readers keep to themselves what they miss",
        "storage/replicas/reading.py",
        (("            if route.is_certain(member):\n", "            if False:\n"),),
        "storage/replicas/test_reporting.py::test_a_reader_that_misses_a_copy_has_it_made_again",
        "assert set() == {None}",
    ),
    Mutant(
        "chunks that are being removed prove a loss",
        "storage/tracking/proof.py",
        (("    low[levels.registers(before.digests + after.digests)] = False\n", ""),),
        "storage/services/test_trace.py::test_copies_on_their_way_out_prove_nothing",
        "Job: trace losses",
    ),
    Mutant(
        "what lies in the trash is called lost",
        "storage/replicas/restoring.py",
        (("    restored = bring_back(topology, chunk_hashes, progress) if", "    restored = set[str]() if"),),
        "storage/replicas/test_restoring.py::"
        "test_an_audit_brings_back_what_an_older_database_needs_and_calls_nothing_lost",
        "== (0, [])",
    ),
    Mutant(
        "a rebalance moves what it meets first",
        "storage/services/rebalance_all.py",
        (("        if drop:\n", "        if drop and chunk_hash < '4':\n"),),
        "storage/services/test_spreading.py::test_copies_that_have_gathered_are_spread_again_although_shares_are_met",
        "assert",
    ),
    Mutant(
        "an owner's files are checked against the quota without a lock",
        "storage/models/quota.py",
        (('_LIMITS + " FOR UPDATE"', "_LIMITS"),),
        "storage/accounts/test_quotas.py::test_an_upload_waits_for_the_one_before_it_and_sees_what_that_has_stored",
        "it does not wait",
    ),
    Mutant(
        "objects do not count as references",
        "storage/migrations/0025_objects.py",
        (
            (
                "SELECT content_id, replication_factor, NULL, id FROM storage_part;\n",
                "SELECT content_id, replication_factor, NULL, id FROM storage_part WHERE false;\n",
            ),
        ),
        "storage/services/objects/test_other_doors.py::"
        "test_a_lost_copy_of_an_object_is_made_again_and_reclaim_takes_nothing_that_an_object_has",
        "a copy that an object needs was not made again",
    ),
    Mutant(
        "what has got its place is dropped as if it had none",
        "storage/models/dropping.py",
        (
            (
                '        return drop_parts(list(pending.values_list("pk", flat=True)))\n',
                "        return drop_parts(part_ids)\n",
            ),
        ),
        "storage/services/objects/test_putting.py::test_a_part_has_one_place",
        "a part of an object was dropped",
    ),
    Mutant(
        "objects are changed without a lock",
        "storage/models/object.py",
        (("     ORDER BY bucket_id, key FOR UPDATE\n", "     ORDER BY bucket_id, key\n"),),
        "storage/services/objects/test_at_once.py::"
        "test_a_change_waits_for_the_one_before_it_and_sees_what_that_has_left",
        "two changes of one version have met in the middle",
    ),
    Mutant(
        "an overwrite during a read looks like a deletion",
        "storage/services/objects/reading.py",
        (("            if opened == gone:\n                raise\n", "            raise\n"),),
        "storage/s3/test_objects.py::"
        "test_an_object_that_changes_after_it_was_found_is_found_again[overwritten-one body]",
        "an object was there all the time",
    ),
)


class StaleMutant(Exception):
    """The text of a guard is not in its file, or is there more than once."""


@dataclass(frozen=True)
class Verdict:
    """The results of one run of scenarios.

    Attributes:
        failures: test → the message of the assertion that failed.
        broken: test → message, for tests that ended without a failed assertion: errors and skips.
        passed: how many tests passed.
        output: the whole output of the run.
    """

    failures: dict[str, str]
    broken: dict[str, str]
    passed: int
    output: str


def copy_project(target: Path) -> None:
    """Copy all files that git tracks or would add, with their present content."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    for name in found.rstrip("\0").split("\0"):
        if (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name)


def mutate(mutant: Mutant, project: Path) -> None:
    """Remove the guard from a copy of the project.

    Raises:
        StaleMutant: an old text is not in the file exactly once.
    """
    path = project / mutant.file
    text = path.read_text()
    for old, new in mutant.edits:
        if (times := text.count(old)) != 1:
            raise StaleMutant(f"{mutant.name}: {mutant.file} has {times} times what has to be there once:\n{old}")
        text = text.replace(old, new)
    path.write_text(text)


def run(scenarios: Iterable[str], project: Path) -> Verdict:
    """Run scenarios in a copy of the project."""
    report = project / "report.xml"
    options = ["-p", "no:cacheprovider", "-m", "", "--tb=short", f"--junitxml={report}"]
    tests = [f"tests/{scenario}" for scenario in scenarios]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=project,
        env={name: value for name, value in os.environ.items() if name not in FOREIGN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    failures, broken, passed = {}, {}, 0
    for case in ElementTree.parse(report).iter("testcase"):
        name = str(case.get("name"))
        if (failure := case.find("failure")) is not None and ASSERTED.match(str(failure.get("message"))):
            failures[name] = str(failure.get("message"))
        elif (other := next(iter(case), None)) is not None and other.tag in ("failure", "error", "skipped"):
            broken[name] = str(other.get("message"))
        else:
            passed += 1
    return Verdict(failures, broken, passed, done.stdout)
