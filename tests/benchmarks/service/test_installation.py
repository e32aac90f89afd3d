"""A benchmark starts a system of its own for each measurement.

The system answers requests, and the pids of its programs are known. In the end no files and no processes of the system
remain.
"""

from pathlib import Path

import pytest

from benchmarks.service.installation import installed
from benchmarks.service.measuring import download, upload
from benchmarks.service.workloads import MIB, Workload, samples

pytestmark = pytest.mark.system


def test_a_system_that_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    workloads = [Workload(2, 4, MIB), Workload(2, 4, MIB, raw=True)]
    with installed(folder, INGEST_WORKERS="3") as installation:
        target = installation.target()
        for workload in workloads:
            with samples(workload) as made:
                up = upload(target, workload, made, folder)
                download(target, workload, made, folder)  # `download` compares the bytes.
            assert up.written and up.written > 3, "three replicas of every byte"
            assert up.cpu_per_gib
            assert up.peaks["api"] > 10
        programs = installation.programs()
        assert len(programs["worker"]) == 3
        assert all(Path(f"/proc/{pid}").exists() for pids in programs.values() for pid in pids)
    assert not list(folder.iterdir())
    assert not any(Path(f"/proc/{pid}").exists() for pids in programs.values() for pid in pids)
