"""Jobs and whoever waits for them: wake-ups, turns, and answers to those who wait."""
