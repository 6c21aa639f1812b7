"""Elastic layers: one set of weights for layers of several sizes, opened by gates.

Every size, of channels, kernels, heads, hidden units or depth, is a part of the next larger one. On a path the part is
cut out (sliced execution: fast, as training along single paths and export need it). In a mixture the whole is run and
each entry counts by its coverage (masked execution: differentiable in the gates). At one-hot gates both compute what
the plain network that `SearchSpace.build` extracts computes.
"""
