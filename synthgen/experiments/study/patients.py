"""Whom a study learns from, and whom it probes: never the same people."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import covariates_of
from synthgen.cubes.cohort.splits import Split, load_or_make_split
from synthgen.errors import InputError
from synthgen.experiments.probe_backbone import check_unseen
from synthgen.experiments.study.options import Study
from synthgen.integration.artifacts import check_belongs, open_cohort
from synthgen.ssl.evaluation.probe import checked


class Labelled(NamedTuple):
    """Whom a study probes: cubes by their index in `cohort`, labels 0 or 1 [n], patients [n]."""

    cohort: Cohort
    index: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


def known_patients(study: Study) -> tuple[Cohort, Split, Provenance]:
    """The cohort, its split, and the provenance that generator, gates and every pretraining must have."""
    cohort = Cohort.open(study.data)
    split = load_or_make_split(cohort)
    return cohort, split, cohort.provenance(split.known)


def labelled_cubes(study: Study) -> Labelled:
    """The labelled cubes that nothing learns from; InputError or LeakError where they cannot be probed."""
    data, split, known = known_patients(study)
    cohort = open_cohort(study.labelled or study.data)
    check_belongs(cohort, data.wavelengths, data.height, "pretraining", study.out)
    index = np.arange(len(cohort)) if study.labelled is not None else cohort.index_of(split.test)
    found = covariates_of(cohort, study.table).get(study.label)
    labels = found.values if found is not None else cohort.label if study.label == "label" else None
    if labels is None or labels.dtype.kind not in "uifb":
        raise InputError(f"has no label '{study.label}'", path=cohort.path, expected="one 0 or 1 per cube")
    index = index[~np.isnan(labels[index])]
    who = cohort.patient_id[index]
    check_unseen(known, who.tolist())
    checked(np.zeros((len(index), 1)), labels[index], who)
    return Labelled(cohort, index, labels[index], who)
