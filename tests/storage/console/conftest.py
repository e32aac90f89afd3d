from tests.support.api import workers
from tests.support.console import page
from tests.support.keys import keys_on

__all__ = ["keys_on", "page", "workers"]
