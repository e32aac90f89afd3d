"""What gunicorn serves: the API, the administration, and downloads past both."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")
_django = get_wsgi_application()

from storage.api.middleware import Protection, RequestLog, StallTimeout  # noqa: E402  once Django is set up
from storage.api.past_django import Downloads  # noqa: E402

application = RequestLog(StallTimeout(Protection(Downloads(_django))))
