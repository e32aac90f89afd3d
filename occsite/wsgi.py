"""The WSGI application that gunicorn serves: the API and the administration, and downloads, which bypass Django."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")
django.setup(set_prefix=False)

from storage.api.downloads.wsgi import Downloads  # noqa: E402  Django must be set up first
from storage.api.metrics import requests  # noqa: E402
from storage.api.wsgi.forwarding import Forwarded  # noqa: E402
from storage.api.wsgi.gate import Gate  # noqa: E402
from storage.api.wsgi.hosts import Handler, Hosts  # noqa: E402
from storage.api.wsgi.middleware import RequestLog  # noqa: E402
from storage.api.wsgi.protection import Protection  # noqa: E402

application = Forwarded(RequestLog(Protection(Hosts(Gate(Downloads(Handler()))))))
requests.process_started()
