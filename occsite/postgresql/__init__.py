"""Django's PostgreSQL backend with a pool that recovers at once (the setting ENGINE names this package)."""
