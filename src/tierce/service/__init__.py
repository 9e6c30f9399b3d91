"""All that a door may call."""
