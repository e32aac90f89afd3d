"""Where copies probably are. Only the modules of this package import ``sketches``."""
