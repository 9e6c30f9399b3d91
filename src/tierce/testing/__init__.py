"""What tests share: contract suites now, and later the simulation. Imported by tests only."""
