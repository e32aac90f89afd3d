"""Makes the pictures of the documents from a real installation: ``make pictures``.

    python -m tests.browser.pictures CHROMIUM

The installation is made for the pictures, and removed at the end. The figures over time that its health page shows are
made up, because a day of figures takes a day. Everything else in the pictures is real.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.system import PROJECT, System

PHOTOGRAPH = "tests.browser.photograph"
PYTHON = PROJECT / ".venv-browser/bin/python"
OUT = PROJECT / "docs/pictures"
MOST_BYTES = 1_500_000  # bytes of all pictures together
SETTINGS = {"AUTH_REQUIRED": "true", "CHUNK_SIZE": "65536", "REPAIR_DELAY": "5", "CENSUS_INTERVAL": "30"}

# The service takes no sample for a minute that has a sample. The samples of some minutes ahead are made up too, so the
# service takes no sample while the pictures are made.
A_DAY = """
DELETE FROM storage_sample;
INSERT INTO storage_sample (at, figures)
SELECT at, jsonb_build_object('files', n / 180, 'bytes', b::bigint, 'reads', n * 40, 'later_looks', n / 2,
       'queued', CASE WHEN hour BETWEEN 9 AND 11 THEN n % 4 ELSE 0 END,
       'waiting', CASE WHEN n % 60 < 6 THEN 1 ELSE 0 END, 'stored', (5e6 + 3 * b)::bigint,
       'disks', 270553174016, 'free', 67638293504, 'load', 0.11 + n / 30000.0,
       'false_positives', 0.06 + n / 60000.0)
  FROM (SELECT at, n, extract(hour FROM at) AS hour,
               sum(CASE WHEN extract(hour FROM at) BETWEEN 7 AND 19 THEN 12e3 * (1.4 + sin(n / 17.0)) ELSE 1e3 END)
               OVER (ORDER BY n) AS b
          FROM (SELECT n, date_trunc('minute', now()) - (1440 - n) * interval '1 minute' AS at
                  FROM generate_series(0, 1450) n) minutes) sums
"""


def main(chromium: str) -> None:
    with tempfile.TemporaryDirectory(prefix="occ-pictures-") as folder:
        system = System(Path(folder) / "state", **SETTINGS)
        system.start()
        try:
            (password,) = re.findall(r"password (\S+)", system.output())
            argv: list[str | Path] = [
                PYTHON,
                "-m",
                PHOTOGRAPH,
                system.base_url,
                chromium,
                system.storage_dir,
                OUT,
                password,
            ]
            subprocess.run([*argv, "story"], cwd=PROJECT, check=True)
            _manage(system, "shell", "-c", f"from django.db import connection as c; c.cursor().execute({A_DAY!r})")
            subprocess.run([*argv, "pages"], cwd=PROJECT, check=True)
        finally:
            system.stop()
    size = sum(path.stat().st_size for path in OUT.glob("*.png"))
    print(f"{len(list(OUT.glob('*.png')))} pictures of {size / 1e6:.2f} MB in {OUT.relative_to(PROJECT)}")
    if size > MOST_BYTES:
        sys.exit(f"too large: at most {MOST_BYTES / 1e6:.1f} MB")


def _manage(system: System, *argv: str) -> None:
    subprocess.run([sys.executable, "manage.py", *argv], cwd=PROJECT, env=system.environment, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
