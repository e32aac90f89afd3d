"""Bodies before their ingest: the staged files, and how contents are cut into chunks."""
