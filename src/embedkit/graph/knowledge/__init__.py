"""Knowledge graphs: triples of many relations, attention over them, and what they propagate."""
