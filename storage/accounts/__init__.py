"""Owners, their keys and their quotas: who a request comes from, what it may do, and how much."""
