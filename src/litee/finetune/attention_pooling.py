"""Attention pooling: a learnt weighted mean of an answer's states in place of their plain mean.

A branch has one query. At zero, where it starts, all weights are equal. Knows nothing of votes,
heads and adapters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from litee.errors import ModelError
from litee.rundir import atomic_path

#: File of a query, beside its branch's adapter and head.
QUERY_FILE = "query.safetensors"


def start_query(width: int, device: torch.device | str = "cpu") -> nn.Parameter:
    """(width,) query that weighs all tokens alike: zero, in float32."""
    return nn.Parameter(torch.zeros(width, device=device))


def attended_means(states: Tensor, spans: Tensor, queries: Tensor) -> Tensor:
    """Weighted mean of every span's states: Σ α_t h_t, α the softmax of q·h_t / √width in the span.

    Yang et al. (2016), Hierarchical Attention Networks (doi:10.18653/v1/N16-1174), eq. 5–7: their
    fixed context vector is q, and h_t itself stands for tanh(W h_t + b). The scale is that of
    Vaswani et al. (2017, arXiv 1706.03762), eq. 1. One masked softmax and one product serve all
    spans, in float32, and sum in the same order each time, on a GPU too.

    Args:
        states: (tokens, width), of any float type.
        spans: (spans, 2) first token and one past the last, at least one token each.
        queries: (spans, width) query of each span's branch.

    Returns:
        (spans, width) in float32; gradients flow to states and queries.

    Scores of 0 and ln 3 make weights of 1/4 and 3/4:

    >>> states = torch.tensor([[9.0], [0.0], [2.0]])
    >>> query = torch.tensor([[3.0]]).log() / 2
    >>> round(attended_means(states, torch.tensor([[1, 3]]), query).item(), 5)
    1.5
    """
    states = states.float()
    scores = queries.float() @ states.T / math.sqrt(states.shape[1])
    token = torch.arange(len(states), device=states.device)
    inside = (token >= spans[:, :1]) & (token < spans[:, 1:])
    return scores.masked_fill(~inside, -torch.inf).softmax(-1) @ states


def repeated(queries: Sequence[Tensor | None], counts: Sequence[int]) -> Tensor | None:
    """Queries of branches as `attended_means` wants them: each as often as its branch has spans.

    Args:
        queries: (width,) per branch; None for a branch with the plain mean, as a zero query gives.
        counts: number of spans per branch.

    Returns:
        (sum of counts, width), or None when no branch has a query.

    >>> repeated([torch.ones(1), None], [1, 2]).tolist()
    [[1.0], [0.0], [0.0]]
    """
    some = next((query for query in queries if query is not None), None)
    if some is None:
        return None
    given = [torch.zeros_like(some) if query is None else query for query in queries]
    return torch.cat([query.expand(n, -1) for query, n in zip(given, counts, strict=True)])


def average_queries(queries: Sequence[Tensor]) -> Tensor:
    """(width,) mean of at least one query.

    >>> average_queries([torch.zeros(1), torch.ones(1)]).tolist()
    [0.5]
    """
    return torch.stack(list(queries)).mean(0)


def save_query(query: Tensor, folder: Path) -> None:
    """Write a branch's (width,) query into its folder, as safetensors."""
    with atomic_path(folder / QUERY_FILE) as temporary:
        save_file({"query": query.detach().cpu().contiguous()}, temporary)


def load_query(folder: Path, device: torch.device | str = "cpu") -> Tensor:
    """Read a branch's (width,) query from its folder.

    Raises:
        ModelError: the file is missing or damaged, or holds no vector.
    """
    file = folder / QUERY_FILE
    try:
        query = load_file(file, device=str(device))["query"]
        if query.ndim != 1:
            raise ValueError(f"its shape is {tuple(query.shape)}")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot read the query of attention pooling: {error}",
            place=str(file),
            fix="fit the judge again",
        ) from error
    return query
