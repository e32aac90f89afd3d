from tests.support.cluster import cluster
from tests.support.installation import chance, make_installation
from tests.support.system import make_system

__all__ = ["chance", "cluster", "make_installation", "make_system"]
