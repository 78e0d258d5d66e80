"""Query and corpus embeddings in, the k nearest corpus rows out."""

from embedkit.search.exact import SearchResult, exact_search

__all__ = ["SearchResult", "exact_search"]
