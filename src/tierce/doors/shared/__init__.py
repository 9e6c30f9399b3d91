"""What all doors need of HTTP: connections with a pace, routes, ranges, conditions, bodies, answers."""
