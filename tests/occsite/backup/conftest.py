from tests.support.cluster import cluster
from tests.support.servers import redis_client

__all__ = ["cluster", "redis_client"]
