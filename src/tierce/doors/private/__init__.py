"""The private door: what nodes ask of each other, signed by the cluster's secret."""
