"""Ground floor: the language of search spaces, data and training, costs, search, and run folders.

- Search spaces: `architecture`, `choices`, `gates`, `space` and `region`; layers in `elastic`, spaces in `spaces`.
- Data and training: `data`, `task`, `training`, `checkpoint`, `device`, `models`; also `super_resolution`.
- Numbers about architectures: `measurement`, `predictor`, `objective`, `benchmark_table`; costs in `cost`.
- Search: `search`, with `pareto`; statistics in `intervals` and `paired`.
- Runs: `run`, `files`, `hashing`, `seeds`, `settings`, `arguments`, `progress`, `errors`; code of users in `user_code`.
"""

if __name__ != "espalier.nas":
    raise ImportError("import espalier.nas, not nas: the folder is a part of the package espalier")
