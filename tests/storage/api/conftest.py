from tests.support.api import either_way, send, workers

__all__ = ["either_way", "send", "workers"]
