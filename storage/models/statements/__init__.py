"""SQL statements that bypass the ORM. Each statement is prepared once for each connection."""
