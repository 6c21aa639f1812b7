"""What the networks of a space cost: parameters, multiply-accumulates, or latencies from a table.

`count` traces one network. `model` says what every cost model offers, and counts a space's MACs exactly. `table` and
`macs` add costs up operator by operator, `block_table` block by block: `blocks` describes blocks, `block_plan` finds
them (with `block_owners` and `block_extraction`). `files` reads either kind of table.
"""
