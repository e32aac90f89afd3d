"""The WSGI layers that every request passes before Django, and every answer after Django."""
