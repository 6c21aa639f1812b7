"""Elastic layers: one set of weights for layers of several sizes, selected by gates.

The layer of each size (channels, kernels, heads, hidden units, depth) is a part of the layer of the next size. On a
single path, this part is sliced out, which is fast. In a mixture, the whole layer is run and each entry is weighted by
its coverage, which is differentiable in the gates. With one-hot gates, both compute exactly what the plain network of
`SearchSpace.build` computes.
"""
