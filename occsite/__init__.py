import os

# The matrices of this project are small. On a busy machine, the threads of BLAS would wait for each other a hundred
# times longer than they compute. The variable must be set before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from occsite.celery import app as celery_app

__all__ = ["celery_app"]
