"""Scores of an untrained network from one mini-batch or none: one short file per score."""
