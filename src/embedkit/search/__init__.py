"""Query and corpus embeddings in, the k nearest corpus rows out."""

from embedkit.search.adaptive import adaptive_search
from embedkit.search.binary import hamming_search, pack_bits, quantize_binary, unpack_bits
from embedkit.search.exact import SearchResult, exact_search
from embedkit.search.late_interaction import late_interaction_search
from embedkit.search.quantized import Int8Rows, dequantize_int8, quantize_int8, quantized_search

__all__ = [
    "Int8Rows",
    "SearchResult",
    "adaptive_search",
    "dequantize_int8",
    "exact_search",
    "hamming_search",
    "late_interaction_search",
    "pack_bits",
    "quantize_binary",
    "quantize_int8",
    "quantized_search",
    "unpack_bits",
]
