"""The pages that a browser gets instead of JSON."""
