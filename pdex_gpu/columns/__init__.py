"""The columns of a result: what each is, what it needs, and how it is computed.

A column is a :class:`~pdex_gpu.columns.base.Column` in the module of its family (`means`, `auroc`,
...); `registry` lists the families. `measure` computes the columns that are made gene by gene
while a run goes on, `finish` those that are derived when all genes are done. The schema, the
tables, the command line, heat maps and the documentation read the registry.

To add a column, add it to its family, and its formula to `pdex_gpu.stats`; a column of another
package is one call of :func:`pdex_gpu.columns.registry.register`. May import `sinks`,
`backends`, `stats` and what lies below them. Families import numpy and `stats` inside functions,
because the command line reads their names for its help and completion.
"""
