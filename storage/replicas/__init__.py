"""Find, read, write, quarantine and remove copies of chunks on the volumes, and count the copies in the right order."""
