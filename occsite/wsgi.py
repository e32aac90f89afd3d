"""What gunicorn serves: the API, the administration, and downloads past both."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")
django.setup(set_prefix=False)

from storage.api.downloads.wsgi import Downloads  # noqa: E402  once Django is set up
from storage.api.wsgi.forwarding import Forwarded  # noqa: E402
from storage.api.wsgi.hosts import Handler, Hosts  # noqa: E402
from storage.api.wsgi.middleware import Protection, RequestLog  # noqa: E402

application = Forwarded(RequestLog(Protection(Hosts(Downloads(Handler())))))
