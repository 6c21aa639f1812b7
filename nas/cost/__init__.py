"""What architectures cost: counted parameters and MACs, and tables of measured costs."""
