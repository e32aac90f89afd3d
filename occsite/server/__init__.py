"""Gunicorn's configuration, and the worker that speaks HTTP."""
