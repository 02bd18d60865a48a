"""The label orders of the datasets, each written once; every array follows one of them."""

CHESTXRAY14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)  # the order of Wang et al. 2017
NO_FINDING = "No Finding"

CHEXPERT = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)  # the order of the released train.csv

CHEXPERT_COMPETITION = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
)  # the five labels that Irvin 2019 and Pham 2019 score

ASADI = (
    *sorted(CHEXPERT),
    "Uncertain",
    "Abnormal",
    "Cardiac",
    "Fluid Accumulation",
    "Missing Lung Tissue",
    "Opacity",
    "Other",
)  # the 21 outputs of the code that Asadi et al. 2025 released

PLCO = (
    "Nodule",
    "Mass",
    "Distortion of Pulmonary Architecture",
    "Pleural Based Mass",
    "Granuloma",
    "Fluid in Pleural Space",
    "Hilar",
    "Major Atelectasis",
    "Infiltration",
    "Scarring",
    "Pleural Fibrosis",
    "Bone Lesion",
    "Cardiac Abnormality",
    "COPD",
    "Pulmonary Nodules and Masses",
    "Opacity",
    "Pleural Abnormality",
    "Pulmonary",
    "Abnormal",
)  # the columns of the lists that Chen et al. 2019 released

# For Chen's method on the public datasets: the leaves, then our inner nodes, named after PLCO's.
CHESTXRAY14_HIERARCHY = (
    *CHESTXRAY14,
    "Nodules and Masses",
    "Opacity",
    "Pleural Abnormality",
    "Pulmonary",
    "Abnormal",
)
CHEXPERT_HIERARCHY = (*CHEXPERT[1:], "Abnormal")  # No Finding is the same as Abnormal = 0

# Findings that radiologists labelled again on images of ChestX-ray14 (Majkowska et al. 2020), and
# the corresponding labels of ChestX-ray14; which of these are airspace opacities is our choice.
FOUR_FINDINGS = {
    "Pneumothorax": ("Pneumothorax",),
    "Nodule or mass": ("Nodule", "Mass"),
    "Airspace opacity": ("Atelectasis", "Consolidation", "Edema", "Infiltration", "Pneumonia"),
}  # their fourth finding, Fracture, is not a label of ChestX-ray14
