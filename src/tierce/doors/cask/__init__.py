"""The Cask door: the HTTP API of a Cask node, with keys ``sha1:HEX``. docs/cask.md describes it."""
