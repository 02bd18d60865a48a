"""Answer the further questions of docs/evidence.md from small files, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from data import policies
from evaluation import EvaluationError
from reproduce.rescore import __main__ as command
from reproduce.rescore import ensembles, evidence, label_error, normals, trees, uncertain
from reproduce.rescore.experts import ExpertSet
from reproduce.tables import authors
from tests.rescore_command import rescore

# How often labels are wrong

MASS, NODULE = (1, 1, 1, 0, 0, 0), (0, 0, 1, 1, 1, np.nan)  # by the experts, of six images
FROM_REPORTS = ("Mass", "Nodule|Mass", "Hernia", "Mass", "No Finding", "Nodule")


def label_file(folder, findings):
    images = [f"{number:08d}_000.png" for number in range(1, len(findings) + 1)]
    rows = {"Image Index": images, "Finding Labels": findings, "Patient ID": [*range(len(images))]}
    table = pd.DataFrame(rows).assign(**{"Patient Gender": "F", "Patient Age": 1})
    table.assign(**{"View Position": "PA"}).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv", images


def test_errors_of_labels_by_hand(tmp_path):
    path, images = label_file(tmp_path, FROM_REPORTS)
    truth = pd.DataFrame({"Mass": MASS, "Nodule": NODULE}, images)
    same_as = {"Mass": ("Mass",), "Nodule": ("Nodule",), "Either": ("Mass", "Nodule")}
    truth["Either"] = [1, 1, 1, 1, 1, 0]
    table = label_error.errors(ExpertSet("two", truth, truth, same_as), path, 50, 0)
    table = table.set_index("label")
    counts = ["both", "report_only", "experts_only", "neither"]
    # reports say Mass of images 1, 2 and 4, and Nodule of 2 and 6; the experts leave 6 open
    assert table.loc["Mass", counts].tolist() == [2, 1, 1, 2]
    assert table.loc["Nodule", counts].tolist() == [0, 1, 3, 1]
    assert table.loc["Either", counts].tolist() == [3, 1, 2, 0]
    assert table.loc["all", counts].tolist() == [5, 3, 6, 3]
    assert table.loc["all", "sensitivity"] == pytest.approx(5 / 11)
    assert table.loc["Mass", "precision"] == pytest.approx(2 / 3)
    assert table.loc["Nodule", "specificity"] == pytest.approx(1 / 2)


def test_the_shipped_errors_are_those_of_the_command(shared_data, tmp_path):
    labels = shared_data / "chestxray14-labels"
    where = "--released", shared_data / "expert-relabels", "--data-dir", labels
    assert rescore("label-error", *where, "--results-dir", tmp_path) == 0
    own = pd.read_csv(tmp_path / "evidence" / "released" / "label-error.csv")
    shipped = pd.read_csv(label_error.SHIPPED)
    bounds = [name for name in shipped if name.endswith(("_low", "_high"))]
    pd.testing.assert_frame_equal(
        own.drop(columns=bounds), shipped.drop(columns=bounds), atol=5.1e-5, rtol=0
    )
    whole = shipped.query("experts == 'all findings' and label == 'all'").iloc[0]
    assert 1 - whole["sensitivity"] == pytest.approx(0.70, abs=0.005)
    assert 1 - whole["precision"] == pytest.approx(0.54, abs=0.005)


def test_the_page_has_every_section(shared_data):
    text = evidence.PAGE.read_text("utf-8")
    for name in evidence.SECTIONS:
        assert f"`python -m reproduce.rescore {name}`" in text
    where = "--released", shared_data / "expert-relabels"
    options = command.parse(["label-error", *map(str, where)])
    options.truth = authors.find_label_file(shared_data / "chestxray14-labels")
    section = label_error.answer(options)
    assert f"- **{section.title}:** {section.short}" in text
    assert section.page() in text, "run python -m reproduce.rescore evidence … --write-docs"


def test_a_label_file_without_the_images_is_refused(tmp_path):
    path, _ = label_file(tmp_path, FROM_REPORTS)
    truth = pd.DataFrame({"Mass": [1.0]}, ["00009999_000.png"])
    with pytest.raises(EvaluationError, match="lacks 1 of 1 images"):
        label_error.errors(ExpertSet("one", truth, truth, {"Mass": ("Mass",)}), path, 5, 0)


# What uncertain labels hide


def test_what_is_behind_each_value_by_hand():
    # two labels of five studies: Edema (-1, -1, 1, blank, blank), Fracture (0, 1, -1, -1, blank)
    studies = [f"test/patient{number}/study1" for number in range(5)]
    names = ["Edema", "Fracture"]
    blank = np.nan
    labeler = pd.DataFrame({"Edema": [-1, -1, 1, blank, blank], "Fracture": [0, 1, -1, -1, blank]})
    truth = pd.DataFrame({"Edema": [1, 0, 1, 1, 0], "Fracture": [0, 1, 0, 0, 1]}, studies)
    frame = uncertain.behind(truth, labeler.set_axis(studies), names, 50, 0)
    frame = frame.set_index(["label", "value"])
    assert frame.loc[("Edema", "uncertain"), ["studies", "positives"]].tolist() == [2, 1]
    assert frame.loc[("Edema", "blank"), ["studies", "positives"]].tolist() == [2, 1]
    assert frame.loc[("Fracture", "uncertain"), "share"] == 0
    assert frame.loc[("all", "uncertain"), ["studies", "positives", "share"]].tolist() == [
        4,
        1,
        1 / 4,
    ]
    assert frame.loc[("all", "blank"), "share"] == pytest.approx(2 / 3)
    assert frame.loc[("all", "blank"), "of_positives_share"] == pytest.approx(2 / 5)
    assert frame.loc["all", "positives"].sum() == 5  # each positive has exactly one value


@pytest.mark.parametrize("policy", ["zeros", "ones", "zeros-lsr", "ones-lsr"])
def test_the_error_of_a_policy_is_that_of_its_own_targets(policy):
    images = 4000
    truth = np.arange(images) % 10 < 3  # 30 % are positive
    released = np.full((images, 1), -1.0)
    targets = policies.apply(released, policy, ids=[str(image) for image in range(images)])
    error = ((targets[:, 0] - truth) ** 2).mean()
    assert uncertain.squared_error(policy, 0.3) == pytest.approx(error, abs=0.01)


def test_the_best_policies_of_a_share():
    # U-Zeros (q) meets its smoothing (.03 + .7 q) at .1, which meets U-Ones+LSR (.4975 - .4 q) at
    # .425, which meets U-Ones (1 - q) at .8375
    assert uncertain.best_policies(0.0, 0.09) == ["zeros"]
    assert uncertain.best_policies(0.11, 0.42) == ["zeros-lsr"]
    assert uncertain.best_policies(0.43, 0.83) == ["ones-lsr"]
    assert uncertain.best_policies(0.84, 1.0) == ["ones"]
    assert uncertain.best_policies(0.05, 0.5) == ["zeros", "zeros-lsr", "ones-lsr"]
    assert uncertain.meeting(0.31, 0.54) == []
    assert uncertain.meeting(0.2, 0.6) == ["U-Zeros+LSR", "U-Ones+LSR"]


# What an ensemble is worth


def three_members():
    # one label of four images; the members rank 3, 2 and 4 of the 4 pairs right
    targets = np.array([[1.0], [1.0], [0.0], [0.0]])
    first, second, third = [0.8, 0.4, 0.6, 0.2], [0.1, 0.9, 0.2, 0.8], [0.9, 0.7, 0.5, 0.1]
    probabilities = np.array([first, second, third])[..., None]
    return ensembles.Members(["a", "b", "c"], targets, probabilities, np.arange(4))


def test_members_and_their_mean_by_hand():
    by_size, gains = ensembles.worth(three_members(), ("AUC", "Brier"), 50, 0)
    by_size = by_size.set_index(["measure", "members"])
    # pairs: a+b .45 .65 .4 .5 (3 of 4), a+c .85 .55 .55 .15 (3.5), b+c .5 .8 .35 .45 (4);
    # all: .6 .667 .433 .367 (4)
    assert by_size.loc[("AUC", 1), "value"] == pytest.approx((3 + 2 + 4) / 3 / 4)
    assert by_size.loc[("AUC", 2), "value"] == pytest.approx((3 + 3.5 + 4) / 3 / 4)
    assert by_size.loc[("AUC", 3), "value"] == 1
    assert by_size["subsets"].loc["AUC"].tolist() == [3, 3, 1]
    gains = gains.set_index(["measure", "over"])["value"]
    assert gains["AUC", "mean member"] == pytest.approx(1 / 4)
    assert gains["AUC", "best member"] == 0
    # squared errors of a: .04 .36 .36 .04; b: .81 .01 .04 .64; c: .01 .09 .25 .01
    whole = np.mean([0.4**2, (1 / 3) ** 2, (1.3 / 3) ** 2, (1.1 / 3) ** 2])
    assert by_size.loc[("Brier", 1), "value"] == pytest.approx((0.2 + 0.375 + 0.09) / 3)
    assert gains["Brier", "best member"] == pytest.approx(whole - 0.09)


def test_equal_members_gain_nothing():
    one = three_members()
    same = one._replace(probabilities=np.repeat(one.probabilities[:1], 3, axis=0))
    _, gains = ensembles.worth(same, ("AUC", "D-AUC", "N-AUC", "Brier"), 50, 0)
    known = gains[gains["measure"] != "D-AUC"]  # no image has another finding, so there is no D-AUC
    assert known[["value", "low", "high"]].to_numpy() == pytest.approx(0, abs=1e-12)
    assert gains[gains["measure"] == "D-AUC"]["value"].isna().all()


# What normal images do to an AUC


def test_an_auc_is_a_mixture_by_hand():
    # Mass: one positive (.6); negatives: one with Nodule (.7), two normal (.5, .6)
    targets = np.array([[1.0, 0], [0, 1], [0, 0], [0, 0]])
    probabilities = np.array([[0.6, 0.1], [0.7, 0.9], [0.5, 0.2], [0.6, 0.3]])
    mass = normals.mixtures(targets, probabilities, ["Mass", "Nodule"]).iloc[0]
    assert mass[["AUC", "D-AUC", "N-AUC", "w"]].tolist() == pytest.approx([0.5, 0, 0.75, 2 / 3])
    assert mass["deviation"] == pytest.approx(0, abs=1e-12)


def test_w_auc_is_a_sum_over_the_shares_of_the_dataset():
    one = three_members()
    table = normals.by_network(one, ["Mass"], {"Mass": 0.3}, 50, 0).set_index(["network", "group"])
    assert table.loc[("a", "W"), "value"] == pytest.approx(0.3 * 3 / 4)
    assert table.loc[("c", "mean"), "value"] == 1


# What trees do

CHAIN = (-1, 0, 1)  # root, child, grandchild


def chain(probabilities, normal=0.0):
    probabilities = np.array(probabilities, float)
    count = len(probabilities)
    targets = np.zeros((count, 3))
    targets[: count // 2] = 1
    names, patients = ["root", "child", "grandchild"], np.arange(count)
    return trees.Network(names, CHAIN, targets, probabilities, patients, np.full(count, normal))


def test_contradictions_by_hand():
    # image 1: both pairs, the first at .5; image 2: none; image 3: the second; image 4: a tie
    network = chain([[0.4, 0.6, 0.7], [0.9, 0.5, 0.1], [0.9, 0.1, 0.2], [0.3, 0.3, 0.3]])
    table = trees.violations(network, 50, 0).set_index("violation")["per_image"]
    assert table.tolist() == [3 / 4, 1 / 4]


def test_repairs_by_hand():
    network = chain([[0.4, 0.6, 0.5], [0.8, 0.5, 0.9]])
    repaired = trees.repairs(network.probabilities, CHAIN, np.array([0.5, 0]))
    assert repaired[trees.CAPPED].tolist() == [[0.4, 0.4, 0.4], [0.8, 0.5, 0.5]]
    product = [[0.4, 0.24, 0.12], [0.8, 0.4, 0.36]]
    assert repaired[trees.PRODUCT] == pytest.approx(np.array(product))
    assert repaired[trees.GATED].tolist() == [[0.2, 0.3, 0.25], [0.8, 0.5, 0.9]]


def test_inner_nodes_are_any_of_independent_leaves():
    tree = ((), (), (0, 1))  # label 2 is a leaf below both roots
    assert trees.with_inner(np.array([[0.3]]), tree) == pytest.approx(np.full((1, 3), 0.3))
    forked = (2, 2, -1)  # two leaves below label 2
    nodes = trees.with_inner(np.array([[0.5, 0.2], [1, 0]]), forked)
    assert nodes == pytest.approx(np.array([[0.5, 0.2, 0.6], [1, 0, 1]]))


def test_a_gate_that_is_the_same_for_all_images_changes_no_auc():
    network = chain([[0.4, 0.6, 0.7], [0.9, 0.5, 0.1], [0.9, 0.1, 0.2], [0.3, 0.3, 0.3]], 0.5)
    table = trees.differences(network, ["child", "grandchild"], 50, 0).set_index("repair")
    assert (table.loc[trees.GATED, "difference"] == 0).all()
    mean = table[table["group"] == trees.MEAN]  # two cases of a finding are too few for intervals
    assert mean.loc[trees.GATED, ["low", "high"]].tolist() == [0, 0]
    # child: .6 .5 against .1 .3 before; capped .4 .5 against .1 .3: 1 both times
    # grandchild: .7 .1 against .2 .3 (2 of 4); capped .4 .1 against .1 .3 (2.5 of 4)
    assert mean.loc[trees.CAPPED, "difference"] == pytest.approx(0.125 / 2)


def test_real_networks_contradict_and_gain_as_counted_elsewhere(shared_data):
    released = authors.read("asadi2025", shared_data / "released").predictions
    table = trees.violations(trees.asadi(released), 50, 0)
    assert table["per_image"].tolist() == pytest.approx([1.43, 0.027], abs=0.005)
