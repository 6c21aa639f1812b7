"""Choosing an architecture from a trained supernet."""
