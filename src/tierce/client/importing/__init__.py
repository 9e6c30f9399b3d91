"""What ``tierce import`` is made of: sources that walk another store's files, doors that take them.

A source finds items one after the other and opens them; a door says whether the node has an item, and
takes it. Neither knows the other. What becomes of each item is the command's business.
"""
