"""Types, limits and rules that every other layer shares. No network, no disk, no clock of its own."""
