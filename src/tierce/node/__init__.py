"""A node as processes on a machine: its directory, its workers, its agent."""
