from tests.support.system import make_system

__all__ = ["make_system"]
