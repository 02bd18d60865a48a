import itertools

import keras
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import label_tree
from losses import hierarchical
from losses.hierarchical import FORMS, hlcp, hlup
from losses.masking import masked_bce
from tests.gradients import values_and_gradients

CHAIN = label_tree.ancestor_matrix((-1, 0, 1))


def softplus(x):
    return np.logaddexp(0, x)


def random_dag(generator, labels, density=0.4):
    """Return a parent matrix with edges from earlier to later labels only."""
    return np.tril(generator.random((labels, labels)) < density, -1).astype(np.float32)


def ancestors_of(parents):
    return label_tree.ancestor_matrix(tuple(tuple(np.flatnonzero(row)) for row in parents))


def one_known(targets):
    """Repeat each image once per label, with all other targets unknown."""
    return np.where(np.eye(targets.shape[1])[None] > 0, targets[:, None], np.nan).reshape(
        -1, targets.shape[1]
    )


def by_50_digits(targets, logits, ancestors):
    """Return values (images · labels,) and gradients (images · labels, labels) of eq. (4)."""
    values, gradients = [], []
    with mpmath.workdps(50):
        for z, y in zip(targets.tolist(), logits.tolist(), strict=True):
            log_sigma = [mpmath.log1p(mpmath.exp(-y_a)) for y_a in y]
            slope = [1 / (1 + mpmath.exp(y_a)) for y_a in y]
            for m, path in enumerate(ancestors):
                s = mpmath.fsum(log_sigma[a] for a in np.flatnonzero(path))
                values.append(float(s if z[m] else -mpmath.log(-mpmath.expm1(-s))))
                factor = -1 if z[m] else 1 / mpmath.expm1(s)
                gradients.append([float(factor * g) if a else 0.0 for a, g in zip(path, slope)])  # noqa: B905
    return np.array(values), np.array(gradients)


LOGITS = {
    "wide": lambda g, shape: g.uniform(-100, 100, shape),
    "usual": lambda g, shape: g.normal(0, 3, shape),
    "all large": lambda g, shape: g.uniform(30, 100, shape),
    "largest": lambda g, shape: np.full(shape, 100.0),
    "around the switch": lambda g, shape: g.uniform(49, 51, shape),
}


@pytest.mark.parametrize("sums", ["matrix", "gather"])
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("tree", ["PLCO", "ASADI"])
def test_exact_form_matches_50_digits_in_float32(tree, logits, sums):
    ancestors = label_tree.ancestor_matrix(getattr(label_tree, tree))
    generator = np.random.default_rng(3)
    y = LOGITS[logits](generator, (10, len(ancestors))).astype(np.float32)
    z = (generator.random(y.shape) < 0.4).astype(np.float32)
    repeated = np.repeat(y, len(ancestors), axis=0)
    values, gradients = values_and_gradients(
        lambda x: hlup(one_known(z), x, ancestors, sums=sums), repeated
    )
    true_values, true_gradients = by_50_digits(z, y, ancestors)
    for ours, true in ((values, true_values), (gradients, true_gradients)):
        assert np.all(np.isfinite(ours))
        large = np.abs(true) > 1e-3
        np.testing.assert_allclose(ours[large], true[large], rtol=5e-6)
        np.testing.assert_allclose(ours[~large], true[~large], rtol=0, atol=1e-8)
    assert np.all(values >= 0)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "maximum"])
def test_hand_worked_chain(form):
    y, z = np.array([[1.0, -2.0, 0.5]]), np.array([[1.0, 1.0, 0.0]])
    sigma = 1 / (1 + np.exp(-y[0]))
    if form == "rescale":
        sigma = 0.02 + 0.98 * sigma
    p = np.cumprod(sigma)
    expected = -np.log(p[0]) - np.log(p[1]) - np.log(1 - p[2])
    values, _ = values_and_gradients(lambda x: hlup(z, x, CHAIN, form), y)
    np.testing.assert_allclose(values, [expected], rtol=1e-12)


@pytest.mark.parametrize(
    ("y", "z", "expected"),
    [
        # (24), first line, z = 0: softplus(1) + softplus(-2) - (1 - 2) - 2
        ((1.0, -2.0), 0.0, softplus(1) + softplus(-2) - (1 - 2) - 2),
        # (24), second line: no logit below 0, so the largest sum over a subset is -1
        ((1.0, 3.0), 0.0, softplus(1) + softplus(3) - (1 + 3) + 1),
        ((-1.0, -2.0), 0.0, softplus(-1) + softplus(-2) - (-1 - 2) - 3),
        ((1.0, -2.0), 1.0, softplus(-1) + softplus(2)),  # exact
    ],
)
def test_the_approximation_by_the_largest_subset_by_hand(y, z, expected):
    """Two labels on a path; the lower one alone is known. (5), (6) and γ of (24)."""
    values, _ = values_and_gradients(
        lambda x: hlup(np.array([[np.nan, z]]), x, CHAIN[:2, :2], "maximum"), np.array([y])
    )
    np.testing.assert_allclose(values, [expected], rtol=1e-12)


def test_the_approximation_exceeds_the_loss_by_at_most_the_log_of_the_subsets():
    """γ of (23) over all subsets, enumerated; LSE is at most log(2^n - 1) above the maximum."""
    generator = np.random.default_rng(0)
    tree = label_tree.ancestor_matrix(label_tree.PLCO)
    y = generator.normal(0, 4, (30, len(tree)))
    z = (generator.random(y.shape) < 0.5).astype(float)
    for sums in ("matrix", "gather"):
        values, _ = values_and_gradients(
            lambda x, sums=sums: hlup(one_known(z), x, tree, "maximum", sums=sums),
            np.repeat(y, len(tree), axis=0),
        )
        values = values.reshape(y.shape)
        for image, m in np.ndindex(y.shape):
            path = y[image, np.flatnonzero(tree[m])]
            subsets = [
                -sum(subset)
                for count in range(1, len(path) + 1)
                for subset in itertools.combinations(path, count)
            ]
            gamma = -(1 - z[image, m]) * (path.sum() + max(subsets))
            terms = softplus(-path) if z[image, m] else softplus(path)
            assert values[image, m] == pytest.approx(terms.sum() + gamma, abs=1e-9)
    exact, _ = values_and_gradients(
        lambda x: hlup(one_known(z), x, tree), np.repeat(y, len(tree), axis=0)
    )
    above = values - exact.reshape(y.shape)
    assert above.min() > -1e-9
    assert (above <= np.log(2.0 ** tree.sum(axis=1) - 1) + 1e-9).all()
    at_zero = np.array([[np.nan] * 3 + [0.0]]), np.zeros((1, 4))
    chain = np.tril(np.ones((4, 4)))
    largest, _ = values_and_gradients(lambda x: hlup(at_zero[0], x, chain, "maximum"), at_zero[1])
    exact, _ = values_and_gradients(lambda x: hlup(at_zero[0], x, chain), at_zero[1])
    np.testing.assert_allclose(largest - exact, np.log(15))


def test_hand_worked_conditional_terms():
    parents = label_tree.parent_matrix((-1, 0, 1, 0))
    y = np.array([[1.0, 2.0, -3.0, 0.5]] * 4)
    z = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, np.nan, 1, 0], [0.6, 0.4, 1, 0.7]])
    positive, negative = softplus(-y[0]), softplus(y[0])
    expected = [
        positive[0] + negative[1] + positive[3],  # label 2: its parent is negative
        negative[0],  # only the root
        positive[0] + negative[3],  # label 2: its parent is unknown
        (0.6 * positive + 0.4 * negative)[0]
        + (0.4 * positive + 0.6 * negative)[1]
        + (0.7 * positive + 0.3 * negative)[3],
    ]
    values, gradients = values_and_gradients(lambda x: hlcp(z, x, parents), y)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    acts = [[1, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1]]
    np.testing.assert_array_equal(gradients != 0, np.array(acts, bool))


@pytest.mark.parametrize(
    ("parent", "counts"), [(0.0, False), (0.5, False), (0.51, True), (0.55, True), (1.0, True)]
)
def test_a_parent_is_positive_above_one_half(parent, counts):
    """One half is not positive; smoothed uncertain labels (0.55 to 0.85) are."""
    z, y = np.array([[parent, 1.0]]), np.array([[0.3, -0.2]])
    values, gradients = values_and_gradients(lambda x: hlcp(z, x, [[0, 0], [1, 0]]), y)
    own = parent * softplus(-0.3) + (1 - parent) * softplus(0.3)
    np.testing.assert_allclose(values, own + counts * softplus(0.2), rtol=1e-12)
    assert (gradients[0, 1] != 0) == counts


def test_a_label_of_many_parents_needs_every_one():
    """One negative among nine parents blocks the label; nine positive parents do not."""
    parents = np.zeros((10, 10))
    parents[9, :9] = 1
    z = np.ones((10, 10)) - np.eye(10)  # in the last image no parent is negative
    _, gradients = values_and_gradients(lambda x: hlcp(z, x, parents), np.zeros((10, 10)))
    np.testing.assert_array_equal(gradients[:, 9] != 0, [False] * 9 + [True])


def test_rescaled_factors_are_two_to_a_hundred_percent():
    """The least product of four factors 0.02 + 0.98 σ is 0.02^4, above the clip of 1e-7."""
    y, z = np.full((1, 4), -100.0), np.ones((1, 4))
    chain = label_tree.ancestor_matrix((-1, 0, 1, 2))
    values, gradients = values_and_gradients(lambda x: hlup(z, x, chain, "rescale"), y)
    np.testing.assert_allclose(values, -(1 + 2 + 3 + 4) * np.log(0.02), rtol=1e-12)
    assert np.all(gradients < 0)
    longer = label_tree.ancestor_matrix((-1, 0, 1, 2, 3))  # 0.02^5 is clipped
    values, _ = values_and_gradients(
        lambda x: hlup(np.ones((1, 5)), x, longer, "rescale"), np.full((1, 5), -100.0)
    )
    np.testing.assert_allclose(values, -(1 + 2 + 3 + 4) * np.log(0.02) - np.log(1e-7), rtol=1e-12)


def test_the_naive_product_is_clipped_on_both_sides():
    for z, y in ((1.0, -50.0), (0.0, 50.0)):
        values, gradients = values_and_gradients(
            lambda x, z=z: hlup(np.array([[z]]), x, np.eye(1), "naive"), np.array([[y]])
        )
        np.testing.assert_allclose(values, -np.log(1e-7), rtol=1e-6)
        assert gradients[0, 0] == 0


def test_the_exact_value_stays_beyond_a_logit_of_120():
    at_120, beyond = (
        values_and_gradients(
            lambda x: hlup(np.zeros((1, 1), np.float32), x, np.eye(1)), np.full((1, 1), y, "f4")
        )[0]
        for y in (120.0, 500.0)
    )
    np.testing.assert_allclose(at_120, 120, rtol=1e-6)
    np.testing.assert_array_equal(beyond, at_120)


def test_the_longest_power_set_is_sixteen_nodes():
    path = np.tril(np.ones((16, 16)))[15:]
    ancestors = np.concatenate([np.eye(16)[:15], path])
    y, z = np.zeros((1, 16)), np.zeros((1, 16))
    values, _ = values_and_gradients(lambda x: hlup(z, x, ancestors, "powerset"), y)
    np.testing.assert_allclose(values, 15 * np.log(2) - np.log1p(-(2.0**-16)), rtol=1e-9)


def test_mean_divides_by_the_labels_that_count():
    parents = label_tree.parent_matrix((-1, 0, 1))
    z, y = np.array([[1.0, 0.0, 0.0], [np.nan] * 3]), np.array([[1.0, -1.0, 2.0]] * 2)
    total, _ = values_and_gradients(lambda x: hlcp(z, x, parents), y)
    mean, _ = values_and_gradients(lambda x: hlcp(z, x, parents, "mean"), y)
    np.testing.assert_allclose(mean, total / [2, 1])
    assert mean[1] == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([1.0, 10.0, 100.0]))
def test_exact_equals_the_printed_power_set_in_float64(seed, labels, spread):
    generator = np.random.default_rng(seed)
    ancestors = ancestors_of(random_dag(generator, labels))
    y = generator.uniform(-spread, spread, (6, labels))
    z = generator.choice([0.0, 1.0, 0.3, np.nan], (6, labels))
    printed = values_and_gradients(lambda x: hlup(z, x, ancestors, "powerset"), y)
    for sums in ("matrix", "gather"):
        exact = values_and_gradients(lambda x, sums=sums: hlup(z, x, ancestors, sums=sums), y)
        for ours, theirs in zip(exact, printed, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 38))
def test_exact_is_finite_and_never_negative_at_any_logit(seed, magnitude):
    generator = np.random.default_rng(seed)
    ancestors = ancestors_of(random_dag(generator, 8))
    y = (generator.uniform(-1, 1, (8, 8)) * 10**magnitude).astype(np.float32)
    y[0] = np.abs(y[0])
    z = generator.choice([0.0, 1.0, np.nan], (8, 8)).astype(np.float32)
    for sums in ("matrix", "gather"):
        values, gradients = values_and_gradients(
            lambda x, sums=sums: hlup(z, x, ancestors, sums=sums), y
        )
        assert np.all(np.isfinite(values))
        assert np.all(values >= 0)
        assert np.all(np.isfinite(gradients))


@pytest.mark.parametrize("y", [100.0, 119.0, 1e3, 1e6])
def test_a_wrongly_certain_path_still_gets_its_whole_gradient(y):
    logits, z = np.full((1, 3), y, np.float32), np.zeros((1, 3), np.float32)
    _, gradients = values_and_gradients(lambda x: hlup(z, x, CHAIN), logits)
    # d -log(1 - p) / dy = 1 on one node, then 1/2 each, then 1/3 each
    np.testing.assert_allclose(gradients[0], [1 + 1 / 2 + 1 / 3, 1 / 2 + 1 / 3, 1 / 3], rtol=1e-5)
    naive = values_and_gradients(lambda x: hlup(z, x, CHAIN, "naive"), logits)[1]
    assert np.all(naive == 0)  # what the exact form is for


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_flat_hierarchies_give_plain_cross_entropy(seed):
    generator = np.random.default_rng(seed)
    y = generator.normal(0, 4, (5, 6)).clip(-15, 15)  # the naive form clips beyond 16
    z = generator.choice([0.0, 1.0, 0.7, np.nan], (5, 6))
    plain = values_and_gradients(lambda x: masked_bce(z, x), y)
    flat = (
        lambda x: hlcp(z, x, np.zeros((6, 6))),
        lambda x: hlup(z, x, np.eye(6)),
        lambda x: hlup(z, x, np.eye(6), "powerset"),
        lambda x: hlup(z, x, np.eye(6), "naive"),
        lambda x: hlup(z, x, np.eye(6), "maximum"),
    )
    for loss in flat:
        for ours, theirs in zip(values_and_gradients(loss, y), plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9)


def test_unknown_targets_have_no_term_but_their_logits_act_below():
    z, y = np.array([[np.nan, np.nan, 0.0], [0.0, np.nan, np.nan]]), np.zeros((2, 3))
    values, gradients = values_and_gradients(lambda x: hlup(z, x, CHAIN), y)
    np.testing.assert_allclose(values, [-np.log(7 / 8), np.log(2)])
    np.testing.assert_array_equal(gradients != 0, [[True] * 3, [True, False, False]])


def test_power_set_of_a_long_path_is_refused():
    with pytest.raises(ValueError, match=r'1.31e\+05 subsets.*form="exact"'):
        hlup(np.zeros((1, 17)), np.zeros((1, 17)), np.tril(np.ones((17, 17))), "powerset")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: hlup(z, z, CHAIN, "stable"), "form must be one of exact"),
        (lambda z: hlup(z, z, np.eye(4)), r"shape \(4, 4\) does not fit 3 logits"),
        (lambda z: hlup(z, z, CHAIN - np.eye(3)), "belongs to its own ancestors"),
        (lambda z: hlup(z, z, CHAIN, sums="fast"), '"matrix" or "gather"'),
        (lambda z: hlcp(z, z, CHAIN), "no label is its own parent"),
        (lambda z: hlcp(z, z, np.zeros((3, 3)), "median"), '"sum" or "mean"'),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 3), np.float32))


def test_accelerators_do_not_get_a_rounded_matrix_product(monkeypatch):
    single, double = np.zeros((1, 3), np.float32), np.zeros((1, 3))
    assert hierarchical._unrounded_sums(double) == "matrix"
    if keras.backend.backend() != "torch":
        assert hierarchical._unrounded_sums(single) == "matrix"
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    assert hierarchical._unrounded_sums(single) == "gather"
    assert hierarchical._unrounded_sums(double) == "matrix"
