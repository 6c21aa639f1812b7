"""Search over the architectures of a space with Optuna."""
