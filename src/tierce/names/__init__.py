"""Names: records of named objects, how two of them merge, and the index that holds them."""
