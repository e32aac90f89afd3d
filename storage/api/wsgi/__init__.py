"""What every request goes through before Django, and every answer after it."""
