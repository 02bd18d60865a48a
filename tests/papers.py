"""The papers that train, and the dataset of each."""

PAPERS = {
    "asadi2025": "chexpert",
    "chen2019": "plco",
    "doerrich2025": "chestmnist",
    "ge2018": "chestxray14",
    "mo2019": "chestxray14",
    "pham2019": "chexpert",
    "wang2017": "chestxray14",
}
