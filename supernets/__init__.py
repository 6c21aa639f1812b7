"""Wing: train one network that holds every candidate, and choose an architecture from it."""

if __name__ != "espalier.supernets":
    raise ImportError("import espalier.supernets, not supernets: the folder is a part of the package espalier")
