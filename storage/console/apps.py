from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """The console's templates, styles and scripts."""

    name = "storage.console"
    label = "console"
    verbose_name = "Console"
