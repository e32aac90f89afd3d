from tests.support.system import make_system, system

__all__ = ["make_system", "system"]
