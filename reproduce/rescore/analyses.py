"""What the flags of rescore ask for beside the scores."""

import pandas as pd

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
    frames, parts, remarks = details.analyse(sample, wanted, validation)
    if validation is None and remarks:
        remarks.append("--validation FILE, the same model on other images, is where to choose.")
    if options.second_truth:
        more, shown = experts.analyse(sample, options.experts, options.resamples, options.seed)
        frames, parts = frames | more, parts | shown
        remarks += [
            f"Experts' labels: {authors.SOURCES['experts'].licence}.",
            experts.READERS_NOTE,
        ]
    return frames, parts, remarks
