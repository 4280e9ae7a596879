"""Which cells to look at: one file a strategy, each a `pnas_fast.protocols.Strategy`.

What is drawn for proposal ``i`` comes from ``default_rng([seed, stream, i])``, what is drawn for a cell or a
round from that cell or round, with a stream for each use: there is no generator whose state would have to be
kept.
"""
