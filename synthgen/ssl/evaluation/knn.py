"""Weighted nearest neighbours among features, never among cubes of the query's own patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TEMPERATURE = 0.07  # of the vote exp(cosine / T), as in Wu et al. 2018 and DINO
KS = (1, 5, 10, 20)


def knn_scores(
    query: np.ndarray,
    bank: np.ndarray,
    bank_labels: np.ndarray,
    query_patients: np.ndarray,
    bank_patients: np.ndarray,
    ks: Sequence[int] = KS,
    rows: int = 1024,
) -> np.ndarray:
    """Fraction of the vote for label 1, float64 [len(ks), n] for queries [n, D] among a bank [m, D] with labels 0 or 1.

    A bank cube votes with exp(cosine similarity / TEMPERATURE). k is clipped to the cubes of other patients; a query
    that has none gets the bank's fraction of label 1. `rows` queries are worked on at a time.
    """
    unit_query, unit_bank = _unit(query), _unit(bank)
    largest = min(max(ks), len(bank))
    out = np.empty((len(ks), len(query)))
    for first in range(0, len(query), rows):
        part = slice(first, first + rows)
        similarity = unit_query[part] @ unit_bank.T
        similarity[query_patients[part, None] == bank_patients[None]] = -np.inf
        nearest = np.argpartition(-similarity, largest - 1, axis=1)[:, :largest]
        order = np.argsort(-np.take_along_axis(similarity, nearest, 1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, 1)
        weight = np.exp((np.take_along_axis(similarity, nearest, 1) - 1) / TEMPERATURE)  # -inf votes with 0
        for row, k in enumerate(ks):
            total = weight[:, :k].sum(1)
            share = (weight[:, :k] * bank_labels[nearest[:, :k]]).sum(1) / np.where(total > 0, total, 1)
            out[row, part] = np.where(total > 0, share, bank_labels.mean())
    return out


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
