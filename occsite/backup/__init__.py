"""Backups of an installation: a dump of PostgreSQL, one copy of each chunk, and the secret (ADR 24)."""
