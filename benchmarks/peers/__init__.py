"""The peers' side of the engine benchmark: other trainers on the same votes, tokens and threads.

`votes` writes one split for all, `environments` gives every peer a virtual environment of its own,
`run` trains and predicts with one peer in child processes and measures them. The `worker_*` modules
run inside the peers' environments, import the peers' libraries there and nothing of litee.
"""
