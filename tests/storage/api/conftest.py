from tests.support.api import either_way, send, workers
from tests.support.sockets import server

__all__ = ["either_way", "send", "server", "workers"]
