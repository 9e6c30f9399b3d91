"""Where bytes rest: the contract of a blob store (store.py) and what keeps it."""
