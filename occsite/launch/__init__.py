"""The start of the service: a process manager, the embedded databases, and the preparation of both databases."""
