"""M-FAC: products with the inverse of the empirical Fisher matrix, for pruning and as an optimiser.

Frantar, Kurtic & Alistarh, "M-FAC: Efficient Matrix-Free Approximations of Second-Order Information", NeurIPS 2021.
"""
