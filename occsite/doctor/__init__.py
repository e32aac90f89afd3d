"""The examination of an installation by ``manage.py doctor``: one module for each part that is looked at."""
