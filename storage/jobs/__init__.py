"""Background work around jobs: waking workers, taking turns, and waiting for the end of a job."""
