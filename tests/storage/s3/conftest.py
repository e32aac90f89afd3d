from tests.support.s3 import cluster, s3, s3_keys, workers

__all__ = ["cluster", "s3", "s3_keys", "workers"]
