"""Owners and their keys: who a request comes from, and what it may do."""
