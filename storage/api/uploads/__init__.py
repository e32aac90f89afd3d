"""A file on its way in."""
