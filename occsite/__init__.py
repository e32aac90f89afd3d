import os

# Linear algebra here is small, and its threads wait for each other on a busy machine: a hundred times longer than they
# compute. Set before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from occsite.celery import app as celery_app

__all__ = ["celery_app"]
