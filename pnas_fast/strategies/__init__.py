"""Which cells to look at: one file a strategy, each a `pnas_fast.protocols.Strategy`.

What random search and evolution draw for their proposal ``i`` comes from ``default_rng([seed, stream, i])``,
with a stream for each: there is no generator whose state would have to be kept.
"""
