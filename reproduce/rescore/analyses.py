"""What the flags of rescore ask for beside the scores."""

import pandas as pd

from evaluation import EvaluationError
from reproduce.rescore import experts
from reproduce.tables import authors, details
from reproduce.tables.sample import Sample


def further(
    sample: Sample, options, validation: Sample | None
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], list[str]]:
    """What `details.analyse` gives, and where the flags ask for it the experts' labels."""
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
        remarks.append("--validation FILE, the same model on other images, is where to choose.")
    if options.second_truth:
        more, shown = experts.analyse(sample, options.experts, options.resamples, options.seed)
        frames, parts = frames | more, parts | shown
        remarks += [
            f"Experts' labels: {authors.SOURCES['experts'].licence}.",
            experts.READERS_NOTE,
        ]
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
    if sample.patients is not None and validation.patients is not None:
        both = {*map(str, sample.patients)} & {*map(str, validation.patients)}
        if both:
            raise EvaluationError(
                f"{len(both):,} patients have images both in --validation and among the scored "
                "ones; leave them out of one of the files."
            )
