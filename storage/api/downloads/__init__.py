"""A file on its way out."""
