"""Decisions of the cluster, without I/O: who is a member, where a blob belongs, what is to be healed."""
