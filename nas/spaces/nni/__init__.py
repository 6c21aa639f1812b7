"""Model spaces of NNI 3.0 (Neural Network Intelligence, Microsoft) as search spaces. NNI is imported nowhere else."""
