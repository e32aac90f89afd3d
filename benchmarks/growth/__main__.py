"""Measures which times and sizes grow with the number of files and chunks, on this machine: ``make bench-growth``.

    python -m benchmarks.growth [--files F] [--chunks C] [--repeat N] [--plans PATH]

The benchmark starts the system twice, on free ports with empty directories below ``var``, and uploads a thousand small
files to each system. In the second system, PostgreSQL makes the rows of F more files of C chunks each. Then both
systems get the same requests, alternately. A million files of ten chunks take about 10 GB of disk, and a quarter of an
hour.
"""

from __future__ import annotations

import argparse
import os
import sys
from http.client import HTTPException
from pathlib import Path

import django

from benchmarks.growth.installation import FOREIGN, Failure, installation

UPLOADED = 1000


def main() -> int:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--chunks", type=int, default=10, help="of each file")
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--plans", type=Path, help="where the plans of the statements go")
    options = parser.parse_args()
    os.environ |= {"DJANGO_SETTINGS_MODULE": "occsite.settings", "LOG_LEVEL": "ERROR"}
    try:
        with installation() as few, installation() as many:
            os.environ |= {"STORAGE_DIR": str(many.state), "DATABASE_PATIENCE": "3600"}
            for name in FOREIGN:
                os.environ.pop(name, None)
            django.setup()  # Only now does the environment name the installation that gets the rows.
            from benchmarks.growth.measuring import Scale, report

            print(report(few, many, UPLOADED, Scale(options.files, options.chunks, options.repeat), options.plans))
    except (Failure, HTTPException, OSError) as error:
        print(f"\ngrowth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
