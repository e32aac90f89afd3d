"""The nodes as a process sees them: which nodes are there, how much room they have, and where new copies go."""
