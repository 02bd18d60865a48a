"""The numbers of drawn patients in the released layouts."""

import numpy as np

from data.phantom import layouts


def test_patients_of_a_large_chexpert_are_in_one_set_each():
    """The released numbers leave room for 200 patients of the validation set."""
    split = np.repeat([0, 1, 2], [5, 300, 40])
    named = layouts._patient_numbers(split)
    assert len(set(named)) == len(named)
    assert (named[0], named[5], named[-1]) == (1, 64541, 64541 + 339)
    few = layouts._patient_numbers(np.array([0, 1, 2, 0]))
    assert few.tolist() == [1, 64541, 64741, 2]  # as released
