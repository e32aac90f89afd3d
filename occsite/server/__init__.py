"""Gunicorn's configuration, and the gunicorn worker that speaks HTTP."""
