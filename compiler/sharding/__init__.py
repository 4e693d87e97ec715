"""Data parallelism within a step: its graph cut into one for each part of the batch, and the rest.

Where a step is a long chain of small operators, as a recurrent network is, a second thread gains
little: each operator is too short to be divided. But what a step does for one half of its batch is
mostly independent of the other half until gradients are added up. So each thread runs the same
graph on its part of the batch, and the rest, sums over the parts and the updates, follows.

- `placement`: how a value of the whole graph is spread over the parts.
- `rules`: what operators make of that, each in one adjacent block.
- `split`: the two graphs.
"""
