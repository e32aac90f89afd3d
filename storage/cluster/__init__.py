"""The nodes as a process sees them: who is there, what room there is, and where new copies go."""
