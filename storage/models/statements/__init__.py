"""Statements that go past the ORM, each of them prepared once for each connection."""
