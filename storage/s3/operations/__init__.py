"""The operations, in modules by what they are about. Each takes a ``Request`` and returns a ``Reply``."""
