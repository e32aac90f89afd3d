"""What HTTP's RFCs say, as pure functions."""
