"""Wing: guess an architecture's accuracy without training it."""

if __name__ != "espalier.predictors":
    raise ImportError("import espalier.predictors, not predictors: the folder is a part of the package espalier")
