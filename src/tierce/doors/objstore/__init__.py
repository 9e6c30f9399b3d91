"""The objstore door: the HTTP API of an objstore node, with files under ULIDs. docs/objstore.md."""
