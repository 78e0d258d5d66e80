"""What a graph looks like around its nodes: counts, walks, proximities, and their factors."""
