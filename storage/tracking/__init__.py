"""Where copies probably are: the only rooms that import ``sketches``."""
