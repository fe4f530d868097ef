"""Tensors in, tensors out: encoders, tokens, fusion, heads and the bundle that ships them."""
