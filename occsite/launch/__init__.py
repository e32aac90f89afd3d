"""From the command to programs that run: one process manager, the embedded databases, and what is prepared first."""
