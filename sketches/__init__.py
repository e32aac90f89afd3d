"""Level-Count Redundancy Sketches: where replicas lie, in one byte per register and node.

The modules are imported by name (``sketches.lcrs``, ``sketches.store``, …); only ``store`` needs Redis.
"""
