"""The dtfc door: files by their SHA-512, loaded from peers on a miss. docs/dtfc.md."""
