"""Which predictor ranks the architectures of a space best: values, correlations, table and plot."""
