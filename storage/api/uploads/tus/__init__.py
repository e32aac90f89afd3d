"""Resumable uploads: tus 1.0 and the IETF draft on one resource, ``/uploads/<id>``."""
