"""The operations of S3: functions that take a ``Request`` and return a ``Reply``, in modules by subject."""
