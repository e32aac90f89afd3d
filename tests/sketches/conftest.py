from tests.support.sketches import build_sketch, chunk_names, spare_server, store

__all__ = ["build_sketch", "chunk_names", "spare_server", "store"]
