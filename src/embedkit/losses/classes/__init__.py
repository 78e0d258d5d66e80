"""Labels: rows of one class together, of others apart."""
