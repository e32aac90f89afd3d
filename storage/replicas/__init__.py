"""Copies of chunks across volumes: find, read, write, quarantine, remove; counted in the right order."""
