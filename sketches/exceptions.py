"""The errors of this package."""


class SketchError(Exception):
    """Base of every error this package raises on purpose."""


class IncompatibleSketches(SketchError):
    """The sketches differ in seed, base size or format version, or their sizes do not fold onto each other."""


class CorruptSketch(SketchError):
    """The bytes are not a whole, undamaged sketch."""


class ShadowLost(SketchError):
    """The shadow of a rebuild is missing, of another build, or was opened before a restart of Redis: start again."""


class StoreUnavailable(SketchError):
    """Redis did not answer, or refused: it is unknown whether Redis has carried out the command."""
