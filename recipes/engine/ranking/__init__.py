"""How well predictors rank: samples of a benchmark table, cached values, rank correlations."""
