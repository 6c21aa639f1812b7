"""Ground floor: the language of choices, spaces and architectures; tasks, data, training, search and runs."""

if __name__ != "espalier.nas":
    raise ImportError("import espalier.nas, not nas: the folder is a part of the package espalier")
