"""Rules of HTTP's RFCs, as pure functions."""
