"""Run the analyses that flags of rescore ask for in addition to the scores."""

import argparse

import pandas as pd

from evaluation import EvaluationError
from reproduce.rescore import experts
from reproduce.tables import authors, details
from reproduce.tables.sample import Sample


def further(
    sample: Sample, options: argparse.Namespace, validation: Sample | None
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], list[str]]:
    """Return frames for CSVs, tables for people by title, and remarks.

    The analyses are those of `details.analyse`, and experts' labels with --truth experts.
    """
    wanted = details.Wanted(
        options.operating_point,
        options.by or (),
        options.calibrate,
        options.resamples,
        options.seed,
    )
    if validation is not None:
        _check_validation(sample, validation)
    frames, parts, remarks = details.analyse(sample, wanted, validation)
    if validation is None and remarks and options.predictions:
        remarks.append(
            "To choose them on other images, give the model's predictions there: --validation FILE."
        )
    if options.second_truth:
        more, shown = experts.analyse(sample, options.experts, options.resamples, options.seed)
        frames, parts = frames | more, parts | shown
        licence = authors.SOURCES["experts"].licence
        remarks += [f"Experts' labels: {licence}.", experts.READERS_NOTE]
    return frames, parts, remarks


def _check_validation(sample: Sample, validation: Sample) -> None:
    """Refuse validation predictions of other labels, or of images or patients that are scored."""
    if list(validation.labels) != list(sample.labels):
        raise EvaluationError(
            "The --validation predictions have other labels than the scored ones; name those that "
            "both have with --labels."
        )
    if shared := len({*validation.ids} & {*sample.ids}):
        raise EvaluationError(
            f"{shared:,} images are both in --validation and among the scored ones; thresholds and "
            "temperature must come from other images."
        )
    if sample.patients is None or validation.patients is None:
        return
    if both := len({*map(str, sample.patients)} & {*map(str, validation.patients)}):
        raise EvaluationError(
            f"{both:,} patients have images both in --validation and among the scored ones; leave "
            "them out of one of the files."
        )
