from django.apps import AppConfig


class StorageConfig(AppConfig):
    name = "storage"
    verbose_name = "OCC Storage"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from storage import checks  # noqa: F401  registers the system checks
