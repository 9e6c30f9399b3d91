"""The upstream: a cloud bucket behind the cluster, for which the cluster is a near-cache."""
