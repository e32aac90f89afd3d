"""The errors of this package."""


class SketchError(Exception):
    """Base of every error this package raises on purpose."""


class IncompatibleSketches(SketchError):
    """Sketches of different seeds, bases, versions or sizes that do not fold onto each other."""


class CorruptSketch(SketchError):
    """Bytes that are not a whole, undamaged sketch."""


class ShadowLost(SketchError):
    """The shadow of a rebuild is missing, belongs to another build, or outlived its server: start again."""


class StoreUnavailable(SketchError):
    """Redis did not answer, or refused. It is unknown whether the command was carried out."""
